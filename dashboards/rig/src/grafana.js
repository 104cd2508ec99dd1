// What Grafana's application provides to its packages: registries and services.
import {
  EventBusSrv,
  LoadingState,
  booleanOverrideProcessor,
  createTheme,
  dataLinksOverrideProcessor,
  displayNameOverrideProcessor,
  identityOverrideProcessor,
  numberOverrideProcessor,
  standardEditorsRegistry,
  standardFieldConfigEditorRegistry,
  standardTransformers,
  standardTransformersRegistry,
  stringOverrideProcessor,
  thresholdsOverrideProcessor,
  unitOverrideProcessor,
  valueMappingsOverrideProcessor,
} from '@grafana/data';
import * as runtime from '@grafana/runtime';
import { sceneGraph } from '@grafana/scenes';
import { catchError, from, map, of, startWith } from 'rxjs';
import { registeredTransformation } from 'version';

import { Prometheus } from './prometheus';

const FIELD_OPTIONS = {
  actions: dataLinksOverrideProcessor,
  color: identityOverrideProcessor,
  decimals: numberOverrideProcessor,
  displayName: displayNameOverrideProcessor,
  fieldMinMax: booleanOverrideProcessor,
  filterable: booleanOverrideProcessor,
  links: dataLinksOverrideProcessor,
  mappings: valueMappingsOverrideProcessor,
  max: numberOverrideProcessor,
  min: numberOverrideProcessor,
  noValue: stringOverrideProcessor,
  thresholds: thresholdsOverrideProcessor,
  unit: unitOverrideProcessor,
};
const EDITORS = [
  'boolean',
  'color',
  'dashboard-uid',
  'field-name',
  'fieldColor',
  'links',
  'mappings',
  'multi-field-name',
  'multi-select',
  'number',
  'radio',
  'select',
  'slider',
  'stats-picker',
  'strings',
  'text',
  'thresholds',
  'timezone',
  'unit',
];
const noEditor = () => null;

/** A field option of a panel. Its editor is never shown. */
export function fieldOption(id, process = identityOverrideProcessor, defaultValue = undefined) {
  return {
    id,
    path: id,
    name: id,
    editor: noEditor,
    override: noEditor,
    process,
    defaultValue,
    shouldApply: () => true,
    settings: {},
  };
}

function fillRegistries() {
  standardFieldConfigEditorRegistry.setInit(() =>
    Object.entries(FIELD_OPTIONS).map(([id, process]) => fieldOption(id, process)),
  );
  standardEditorsRegistry.setInit(() => EDITORS.map((id) => ({ id, name: id, editor: noEditor })));
  const transformers = new Map(Object.values(standardTransformers).map((each) => [each.id, each]));
  standardTransformersRegistry.setInit(() =>
    [...transformers.values()].map((each) => ({
      id: each.id,
      name: each.name,
      transformation: registeredTransformation(each),
      editor: noEditor,
    })),
  );
}

/** Replaces the variables of a text, with the scene object that Grafana's packages pass along. */
function interpolate(text, scopedVars, format) {
  const scene = scopedVars?.__sceneObject?.value?.valueOf();
  return scene ? sceneGraph.interpolate(scene, text, scopedVars, format) : text;
}

function runRequest(source, request, queryFunction) {
  const packet = { state: LoadingState.Done, series: [], annotations: [], timeRange: request.range, request };
  return from(queryFunction ? queryFunction(request) : source.query(request)).pipe(
    map(({ data }) => ({ ...packet, series: data })),
    catchError((error) => of({ ...packet, state: LoadingState.Error, error: { message: error.message } })),
    startWith({ ...packet, state: LoadingState.Loading }),
  );
}

/**
 * Sets everything up, and returns the theme.
 *
 * scrapeInterval is the setting of the data source, '' if it has none.
 */
export function setUp({ mode, prometheusUrl, scrapeInterval, plugins }) {
  const theme = createTheme({ colors: { mode } });
  Object.assign(runtime.config, {
    theme: theme.v1,
    theme2: theme,
    bootData: {
      settings: {},
      user: { orgRole: 'Viewer', timezone: 'utc', locale: 'en-US', language: 'en-US' },
      navTree: [],
    },
  });
  fillRegistries();

  const info = { logos: { small: '', large: '' }, version: '' };
  const settings = {
    id: 1,
    uid: 'prometheus',
    name: 'Prometheus',
    type: 'prometheus',
    access: 'proxy',
    isDefault: true,
    readOnly: true,
    url: prometheusUrl,
    jsonData: scrapeInterval ? { timeInterval: scrapeInterval } : {},
    meta: {
      id: 'prometheus',
      name: 'Prometheus',
      type: 'datasource',
      module: '',
      baseUrl: '',
      info,
      metrics: true,
      annotations: true,
    },
  };
  const source = new Prometheus(settings, interpolate);
  runtime.setDataSourceSrv({
    get: async () => source,
    getInstanceSettings: () => settings,
    getList: () => [settings],
    reload: () => {},
    registerRuntimeDataSource: () => {},
  });
  runtime.setTemplateSrv({
    containsTemplate: (text) => text?.includes('$') ?? false,
    getVariables: () => [],
    replace: interpolate,
    updateTimeRange: () => {},
  });
  runtime.setRunRequest(runRequest);
  for (const [id, plugin] of Object.entries(plugins)) {
    plugin.meta = { id, name: id, type: 'panel', module: '', baseUrl: '', info };
  }
  runtime.setPluginImportUtils({
    importPanelPlugin: async (id) => plugins[id],
    getPanelPluginFromCache: (id) => plugins[id],
  });
  // Not every version has all of these.
  runtime.setBackendSrv?.({ fetch: () => of({ data: {} }), get: async () => ({}) });
  runtime.setEchoSrv?.({ addBackend: () => {}, addEvent: () => {}, flush: () => {} });
  runtime.setAppEvents?.(new EventBusSrv());
  runtime.setChromeHeaderHeightHook?.(() => 0);
  runtime.setLocationSrv?.({ update: () => {} });
  runtime.setReturnToPreviousHook?.(() => () => {});
  return theme;
}
