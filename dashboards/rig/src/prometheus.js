// A data source for Prometheus. Grafana's own is under the AGPL. This one follows its documentation: the step of a
// query, the built-in variables, legends, tables, the queries of variables, and annotations.
import { DataSourceApi, FieldType, createDataFrame, rangeUtil } from '@grafana/data';
import { from } from 'rxjs';
import { annotationPoints } from 'version';

const DEFAULT_SCRAPE_INTERVAL = '15s';
const MAX_POINTS = 11_000;
const MIN_ANNOTATION_STEP = '60s';
const seconds = (interval) => rangeUtil.intervalToMs(interval) / 1000;

/** Formats the value of a variable: as text in quotes, or as a regular expression if several values can be selected. */
function formatValue(value, { multi, includeAll } = {}) {
  if (typeof value === 'number') {
    return value;
  }
  if (!multi && !includeAll) {
    return value.replaceAll('\\', '\\\\').replaceAll("'", "\\\\'");
  }
  const all = [value].flat().map((each) => each.replaceAll('\\', '\\\\\\\\').replace(/[$^*{}[\]'+?.()|]/g, '\\\\$&'));
  return all.length === 1 ? all[0] : `(${all.join('|')})`;
}

function fillLabels(template, labels) {
  return (template ?? '').replace(/{{\s*(.+?)\s*}}/g, (_, name) => labels[name] ?? '');
}

function legend(format, { __name__: metric = '', ...labels }, expression) {
  if (format && format !== '__auto') {
    return fillLabels(format, labels);
  }
  const names = Object.keys(labels).sort();
  if (format && names.length) {
    return ''; // Grafana chooses the labels that differ.
  }
  return metric || names.length
    ? `${metric}{${names.map((name) => `${name}="${labels[name]}"`).join(', ')}}`
    : expression;
}

function seriesFrame(target, expression, { metric, value, values = [value] }, step) {
  const name = legend(target.legendFormat, metric, expression);
  return createDataFrame({
    refId: target.refId,
    name,
    fields: [
      {
        name: 'Time',
        type: FieldType.time,
        values: values.map(([time]) => time * 1000),
        config: step ? { interval: step * 1000 } : {},
      },
      {
        name: 'Value',
        type: FieldType.number,
        labels: metric,
        values: values.map(([, text]) => Number(text.replace('Inf', 'Infinity'))),
        config: name ? { displayNameFromDS: name } : {},
      },
    ],
  });
}

/** Returns the series of a query as one table: the time, a column for each label, and the value. */
function tableFrame(refId, frames, valueName) {
  const rows = frames.flatMap(({ fields: [time, value] }) =>
    time.values.map((at, index) => ({ at, labels: value.labels, value: value.values[index] })),
  );
  const names = [...new Set(frames.flatMap(({ fields: [, value] }) => Object.keys(value.labels).sort()))];
  return createDataFrame({
    refId,
    fields: [
      { name: 'Time', type: FieldType.time, values: rows.map(({ at }) => at), config: {} },
      ...names.map((name) => ({
        name,
        type: FieldType.string,
        values: rows.map(({ labels }) => labels[name] ?? ''),
        config: { filterable: true },
      })),
      { name: valueName, type: FieldType.number, values: rows.map(({ value }) => value), config: {} },
    ],
  });
}

export class Prometheus extends DataSourceApi {
  constructor(settings, interpolate) {
    super(settings);
    this.meta = settings.meta;
    this.url = settings.url;
    this.scrapeInterval = settings.jsonData.timeInterval ?? DEFAULT_SCRAPE_INTERVAL;
    this.interval = this.scrapeInterval;
    this.fill = (text, scopedVars) => interpolate(text, scopedVars, formatValue);
    this.annotations = {
      prepareAnnotation: (json) => json,
      prepareQuery: (annotation) => ({
        refId: 'Anno',
        expr: annotation.target?.expr ?? annotation.expr,
        interval: annotation.step || MIN_ANNOTATION_STEP,
      }),
      processEvents: (annotation, frames) => from([this.events(annotation, frames)]),
    };
  }

  query(request) {
    return from(this.run(request));
  }

  async run(request) {
    const targets = request.targets.filter((target) => target.expr && !target.hide);
    const tables = targets.filter((target) => target.format === 'table').length;
    const results = await Promise.all(
      targets.map(async (target) => {
        const frames = await this.series(target, request);
        if (target.format === 'table') {
          return [tableFrame(target.refId, frames, tables > 1 ? `Value #${target.refId}` : 'Value')];
        }
        return frames.length ? frames : [createDataFrame({ refId: target.refId, fields: [] })];
      }),
    );
    return { data: results.flat() };
  }

  async series(target, { range, intervalMs, maxDataPoints, scopedVars }) {
    const start = range.from.valueOf() / 1000;
    const end = range.to.valueOf() / 1000;
    let wanted = intervalMs;
    if (target.refId === 'Anno') {
      wanted = rangeUtil.calculateInterval(range, annotationPoints ?? maxDataPoints, target.interval).intervalMs;
    }
    const step = Math.max(wanted / 1000, target.interval ? seconds(target.interval) : 0, (end - start) / MAX_POINTS);
    if (target.refId === 'Anno') {
      this.annotationStep = annotationPoints ? seconds(MIN_ANNOTATION_STEP) : step;
    }
    const scrapeInterval = seconds(target.interval || this.scrapeInterval);
    const range_s = Math.round(end - start);
    const builtIn = {
      __interval: `${step}s`,
      __interval_ms: step * 1000,
      __range: `${range_s}s`,
      __range_s: range_s,
      __range_ms: range_s * 1000,
      __rate_interval: `${Math.round(Math.max(step + scrapeInterval, 4 * scrapeInterval))}s`,
    };
    const scoped = Object.fromEntries(Object.entries(builtIn).map(([name, value]) => [name, { text: value, value }]));
    const query = this.fill(target.expr, { ...scopedVars, ...scoped });
    const align = (time) => Math.floor(time / step) * step;
    const result = target.instant
      ? await this.request('query', { query, time: end })
      : await this.request('query_range', { query, start: align(start), end: align(end), step });
    return result.result.map((each) => seriesFrame(target, query, each, target.instant ? undefined : step));
  }

  /** Returns the values of a variable. */
  async metricFindQuery(query, { range, scopedVars }) {
    const text = this.fill(typeof query === 'string' ? query : query.query, scopedVars);
    const [start, end] = [Math.floor(range.from.valueOf() / 1000), Math.ceil(range.to.valueOf() / 1000)];
    const values = /^label_values\((?:(.+),\s*)?(\w+)\)\s*$/s.exec(text);
    if (values) {
      const labels = await this.request(`label/${values[2]}/values`, {
        start,
        end,
        ...(values[1] && { 'match[]': values[1] }),
      });
      return labels.map((label) => ({ text: label }));
    }
    const result = /^query_result\((.+)\)\s*$/s.exec(text);
    if (!result) {
      throw new Error(`unknown query of a variable: ${text}`);
    }
    const { result: series } = await this.request('query', { query: result[1], time: end });
    return series.map(({ metric: { __name__: name = '', ...labels }, value: [time, value] }) => ({
      text: `${name}{${Object.entries(labels)
        .map(([label, each]) => `${label}="${each}"`)
        .join(',')}} ${value} ${time * 1000}`,
    }));
  }

  /** Returns the events of annotations: adjacent samples above 0 are one region. */
  events(annotation, frames) {
    const longestGap = this.annotationStep * 1000 * 1.01;
    const events = [];
    for (const {
      fields: [times, values],
    } of frames.filter((frame) => frame.fields.length > 1)) {
      let event;
      times.values.forEach((time, index) => {
        if (!(values.values[index] > 0)) {
          return;
        }
        if (event && time - event.timeEnd <= longestGap) {
          event.timeEnd = time;
          return;
        }
        event = {
          time,
          timeEnd: time,
          isRegion: true,
          annotation,
          source: annotation,
          color: annotation.iconColor,
          type: annotation.name,
          title: fillLabels(annotation.titleFormat, values.labels),
          text: fillLabels(annotation.textFormat, values.labels),
          tags: [],
        };
        events.push(event);
      });
    }
    return events;
  }

  async request(endpoint, form) {
    const body = new URLSearchParams(form);
    const address = `${this.url}/api/v1/${endpoint}`;
    const response = await (endpoint.startsWith('label/')
      ? fetch(`${address}?${body}`)
      : fetch(address, { method: 'POST', body }));
    const { status, error, data } = await response.json();
    if (status !== 'success') {
      throw new Error(error);
    }
    return data;
  }

  async testDatasource() {
    return { status: 'success', message: '' };
  }
}
