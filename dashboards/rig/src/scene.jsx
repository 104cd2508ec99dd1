// The JSON of a dashboard as objects of @grafana/scenes.
import { LoadingState, getDefaultTimeRange, rangeUtil } from '@grafana/data';
import {
  ConstantVariable,
  CustomVariable,
  DataSourceVariable,
  EmbeddedScene,
  QueryVariable,
  SceneControlsSpacer,
  SceneDataLayerControls,
  SceneDataLayerSet,
  SceneDataNode,
  SceneDataTransformer,
  SceneGridItem,
  SceneGridLayout,
  SceneGridRow,
  SceneQueryRunner,
  SceneRefreshPicker,
  SceneTimePicker,
  SceneTimeRange,
  SceneVariableSet,
  TextBoxVariable,
  VariableValueSelectors,
  VizPanel,
  behaviors,
  dataLayers,
} from '@grafana/scenes';

/** Returns a variable. The address can select its values, as in Grafana: var-lock=2004&var-lock=2005. */
function variable(json, parameters) {
  const { name, label, hide, skipUrlSync, current, query } = json;
  const chosen = parameters.getAll(`var-${name}`);
  const selected = chosen.length
    ? { value: chosen, text: chosen }
    : { value: current?.value ?? '', text: current?.text ?? '' };
  const common = {
    name,
    label,
    hide,
    skipUrlSync,
    isMulti: json.multi,
    includeAll: json.includeAll,
    allValue: json.allValue || undefined,
    defaultToAll: Boolean(json.includeAll),
  };
  switch (json.type) {
    case 'datasource':
      return new DataSourceVariable({
        ...common,
        pluginId: query,
        regex: json.regex ?? '',
        value: 'prometheus',
        text: 'Prometheus',
      });
    case 'query':
      return new QueryVariable({
        ...common,
        ...selected,
        query,
        datasource: json.datasource,
        refresh: json.refresh,
        sort: json.sort,
        regex: json.regex ?? '',
      });
    case 'custom':
      return new CustomVariable({ ...common, ...selected, query });
    case 'constant':
      return new ConstantVariable({ name, hide, skipUrlSync, value: query });
    case 'textbox':
      return new TextBoxVariable({ name, label, hide, skipUrlSync, value: chosen[0] ?? query });
    default:
      throw new Error(`variables of the type ${json.type} are not supported`);
  }
}

function panel(json) {
  const { id, title, description, type, options = {}, fieldConfig, pluginVersion, datasource, targets = [] } = json;
  const queries = new SceneQueryRunner({
    datasource,
    queries: targets,
    maxDataPoints: json.maxDataPoints,
    maxDataPointsFromWidth: true,
    minInterval: json.interval,
  });
  const noQueries = new SceneDataNode({
    data: { state: LoadingState.Done, series: [], timeRange: getDefaultTimeRange() },
  });
  const ownRange = json.timeFrom && { from: `now-${json.timeFrom}`, to: 'now' };
  return new VizPanel({
    $timeRange: ownRange && new SceneTimeRange({ ...ownRange, timeZone: 'utc' }),
    titleItems: ownRange && <span className="rig-time-range">{rangeUtil.describeTimeRange(ownRange)}</span>,
    key: `panel-${id}`,
    title,
    description,
    pluginId: type,
    options,
    fieldConfig,
    pluginVersion,
    displayMode: json.transparent ? 'transparent' : 'default',
    $data: targets.length
      ? new SceneDataTransformer({ $data: queries, transformations: json.transformations ?? [] })
      : noQueries,
  });
}

function cell(json, moved) {
  const { x, y, w, h } = json.gridPos;
  return new SceneGridItem({
    key: `cell-${json.id}`,
    x,
    y: y + moved,
    width: w,
    height: h,
    body: panel(json),
    isDraggable: false,
    isResizable: false,
  });
}

/** Returns panels and rows. With `expand`, all rows are expanded. */
function grid(dashboard, expand) {
  const children = [];
  let row;
  let moved = 0;
  for (const json of dashboard.panels) {
    if (json.type === 'row') {
      const isCollapsed = Boolean(json.collapsed) && !expand;
      const hidden = json.panels ?? [];
      row = new SceneGridRow({
        title: json.title,
        y: json.gridPos.y + moved,
        isCollapsed,
        children: hidden.map((each) => cell(each, moved)),
      });
      children.push(row);
      if (expand && hidden.length) {
        moved += Math.max(...hidden.map(({ gridPos }) => gridPos.y + gridPos.h)) - json.gridPos.y - 1;
      }
    } else if (row) {
      row.setState({ children: [...row.state.children, cell(json, moved)] });
    } else {
      children.push(cell(json, moved));
    }
  }
  return new SceneGridLayout({ isLazy: false, children });
}

export function createScene(dashboard, parameters) {
  const layers = dashboard.annotations.list.map(
    (query, index) =>
      new dataLayers.AnnotationsDataLayer({
        key: `annotations-${index}`,
        query,
        name: query.name,
        isEnabled: Boolean(query.enable),
        isHidden: Boolean(query.hide),
      }),
  );
  const { from, to } = dashboard.time;
  return new EmbeddedScene({
    $timeRange: new SceneTimeRange({
      from: parameters.get('from') ?? from,
      to: parameters.get('to') ?? to,
      timeZone: 'utc',
    }),
    $variables: new SceneVariableSet({
      variables: dashboard.templating.list.map((json) => variable(json, parameters)),
    }),
    $data: new SceneDataLayerSet({
      layers,
      name: layers.map((each) => each.state.name).join(', '),
      isHidden: dashboard.annotations.list.every(({ hide }) => hide),
    }),
    $behaviors: [new behaviors.CursorSync({ sync: dashboard.graphTooltip })],
    controls: [
      new VariableValueSelectors({}),
      new SceneDataLayerControls(),
      new SceneControlsSpacer(),
      new SceneTimePicker({ isOnCanvas: true }),
      new SceneRefreshPicker({ refresh: '', intervals: [dashboard.refresh], isOnCanvas: true }),
    ],
    body: grid(dashboard, parameters.has('expand')),
  });
}
