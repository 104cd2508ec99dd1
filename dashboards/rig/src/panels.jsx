// The types of panels. Grafana's own are under the AGPL and in no package. Each of these passes the options of the JSON
// to the component that Grafana's panel uses, which is in a package. The exceptions are the marks of annotations, and
// timeline.jsx.
import {
  FieldConfigProperty,
  FieldType,
  PanelPlugin,
  VizOrientation,
  applyNullInsertThreshold,
  cacheFieldDisplayNames,
  getDisplayValueAlignmentFactors,
  getFieldDisplayValues,
  renderTextPanelMarkdown,
} from '@grafana/data';
import { BigValue, TimeSeries, VizRepeater, useTheme2 } from '@grafana/ui';
import { useLayoutEffect, useMemo, useRef } from 'react';
import { Table } from 'version';

import { fieldOption } from './grafana';
import { Timeline } from './timeline';

const GRAPH = {
  axisBorderShow: false,
  axisCenteredZero: false,
  axisColorMode: 'text',
  axisGridShow: undefined,
  axisLabel: '',
  axisPlacement: 'auto',
  axisSoftMax: undefined,
  axisSoftMin: undefined,
  axisWidth: undefined,
  barAlignment: 0,
  barMaxWidth: undefined,
  barWidthFactor: 0.6,
  drawStyle: 'line',
  fillBelowTo: undefined,
  fillOpacity: 0,
  gradientMode: 'none',
  hideFrom: { legend: false, tooltip: false, viz: false },
  insertNulls: false,
  lineInterpolation: 'linear',
  lineStyle: undefined,
  lineWidth: 1,
  pointSize: 5,
  scaleDistribution: { type: 'linear' },
  showPoints: 'auto',
  spanNulls: false,
  stacking: { mode: 'none', group: 'A' },
  thresholdsStyle: { mode: 'off' },
};
const TABLE = {
  hideFrom: { viz: false },
  align: 'auto',
  cellOptions: { type: 'auto' },
  filterable: undefined,
  hidden: undefined,
  inspect: false,
  minWidth: undefined,
  width: undefined,
  wrapHeaderText: undefined,
  wrapText: undefined,
};
const TIMELINE = {
  axisPlacement: 'auto',
  fillOpacity: 70,
  hideFrom: { legend: false, tooltip: false, viz: false },
  lineWidth: 0,
  spanNulls: false,
};

/** What Grafana shows if there is nothing to draw. */
function NoData({ data, fieldConfig }) {
  const isEmpty = data.series.every((frame) => frame.length === 0);
  const text = isEmpty ? (fieldConfig.defaults.noValue ?? 'No data') : 'Data is missing a number field';
  return <div className="rig-centred">{text}</div>;
}

function Stat(props) {
  const { data, fieldConfig, options, replaceVariables, timeZone, title } = props;
  const theme = useTheme2();
  const needsName = options.textMode === 'auto' && (fieldConfig.defaults.displayName || !title);
  const getValues = () =>
    getFieldDisplayValues({
      data: data.series,
      fieldConfig,
      reduceOptions: options.reduceOptions,
      replaceVariables,
      sparkline: options.graphMode !== 'none',
      theme,
      timeZone,
    });
  return (
    <VizRepeater
      autoGrid
      getAlignmentFactors={getDisplayValueAlignmentFactors}
      getValues={getValues}
      height={props.height}
      itemSpacing={3}
      orientation={options.orientation ?? VizOrientation.Auto}
      renderCounter={props.renderCounter}
      source={data}
      width={props.width}
      renderValue={({ alignmentFactors, count, height, orientation, value, width }) => (
        <BigValue
          alignmentFactors={alignmentFactors}
          colorMode={options.colorMode}
          count={count}
          graphMode={options.graphMode}
          height={height}
          justifyMode={options.justifyMode}
          parentOrientation={orientation}
          percentChangeColorMode={options.percentChangeColorMode}
          sparkline={value.sparkline}
          text={options.text}
          textMode={needsName ? 'value_and_name' : options.textMode}
          theme={theme}
          value={value.display}
          wideLayout={options.wideLayout}
          width={width}
        />
      )}
    />
  );
}

function Graph(props) {
  const { data, options, timeRange } = props;
  const frames = useMemo(
    () => data.series.filter(isGraph).map((frame) => withGaps(frame, timeRange)),
    [data.series, timeRange],
  );
  if (!frames.length) {
    return <NoData {...props} />;
  }
  return (
    <TimeSeries
      frames={frames}
      height={props.height}
      legend={options.legend}
      options={options}
      structureRev={data.structureRev}
      timeRange={timeRange}
      timeZone={props.timeZone}
      width={props.width}
    >
      {(builder) => <Marks builder={builder} frames={data.annotations} />}
    </TimeSeries>
  );
}

const isGraph = ({ fields }) =>
  fields.some(({ type }) => type === FieldType.time) && fields.some(({ type }) => type === FieldType.number);

/** Inserts a missing value if two samples are more than a step apart. */
function withGaps(frame, timeRange) {
  const { fields } = applyNullInsertThreshold({
    frame,
    refFieldPseudoMin: timeRange.from.valueOf(),
    refFieldPseudoMax: timeRange.to.valueOf(),
  });
  const finite = (field) =>
    field.type === FieldType.number
      ? { ...field, values: field.values.map((value) => (Number.isFinite(value) ? value : null)) }
      : field;
  return { ...frame, fields: fields.map(finite), length: fields[0].values.length };
}

/** A mark for each annotation: a translucent region with a bar below it. */
function Marks({ builder, frames }) {
  const current = useRef([]);
  const drawn = useRef();
  useLayoutEffect(() => {
    current.current = frames ?? [];
    drawn.current?.redraw(false);
  }, [frames]);
  useLayoutEffect(() => {
    builder.addHook('draw', (plot) => {
      drawn.current = plot;
      const { left, top, width, height } = plot.bbox;
      const position = (time) => Math.min(left + width, Math.max(left, plot.valToPos(time, 'x', true)));
      for (const frame of current.current) {
        const column = (name) => frame.fields.find((field) => field.name === name)?.values ?? [];
        column('time').forEach((time, index) => {
          const start = position(time);
          const length = position(column('timeEnd')[index] ?? time) - start;
          plot.ctx.save();
          plot.ctx.fillStyle = plot.ctx.strokeStyle = column('color')[index];
          plot.ctx.fillRect(start, top + height, Math.max(3, length), 5);
          plot.ctx.setLineDash([5, 5]);
          plot.ctx.strokeRect(start, top, Math.max(1, length), height);
          plot.ctx.globalAlpha = 0.1;
          plot.ctx.fillRect(start, top, length, height);
          plot.ctx.restore();
        });
      }
    });
  }, [builder]);
  return null;
}

function Sheet(props) {
  const { data, fieldConfig, options } = props;
  useMemo(() => cacheFieldDisplayNames(data.series), [data.series]);
  if (!data.series.some((frame) => frame.fields.length)) {
    return <NoData {...props} />;
  }
  return (
    <Table
      data={data.series[0]}
      fieldConfig={fieldConfig}
      height={props.height}
      options={options}
      structureRev={data.structureRev}
      timeRange={props.timeRange}
      width={props.width}
    />
  );
}

function Text({ options, replaceVariables }) {
  const text = replaceVariables(options.content);
  return (
    <div
      className="markdown-html rig-text"
      dangerouslySetInnerHTML={{ __html: options.mode === 'html' ? text : renderTextPanelMarkdown(text) }}
    />
  );
}

/** Returns a type of panels. The defaults of a field's options are those of Grafana's panel. */
function plugin(Component, defaults = {}, standardOptions = undefined) {
  // The element lets measure.js distinguish a panel's content from its title.
  const Marked = (props) => (
    <div className="rig-content" data-panel={props.id}>
      <Component {...props} />
    </div>
  );
  return new PanelPlugin(Marked).useFieldConfig({
    standardOptions,
    useCustomConfig: (builder) =>
      Object.entries(defaults).forEach(([id, value]) => builder.addCustomEditor(fieldOption(id, undefined, value))),
  });
}

/** Returns all types of panels by Grafana's name. */
export function createPlugins() {
  const timeseries = plugin(Graph, GRAPH, {
    [FieldConfigProperty.Color]: { settings: { byValueSupport: true }, defaultValue: { mode: 'palette-classic' } },
  });
  timeseries.setDataSupport({ annotations: true, alertStates: true });
  return {
    timeseries,
    stat: plugin(Stat),
    'state-timeline': plugin(Timeline, TIMELINE),
    table: plugin(Sheet, TABLE),
    text: plugin(Text),
  };
}
