// The state timeline. Grafana's is in no package: this one draws its bands on the axes and with the legend of Grafana's
// packages.
import { FieldType, formattedValueToString, getFieldDisplayName } from '@grafana/data';
import { AxisPlacement, ScaleDirection, ScaleDistribution, ScaleOrientation } from '@grafana/schema';
import { UPlotChart, UPlotConfigBuilder, VizLayout, VizLegend, useTheme2 } from '@grafana/ui';
import { useMemo } from 'react';

const FONT_SIZE = 12;
const PADDING = 3;

/**
 * Returns a function that returns text and colour of a value.
 *
 * With the colour mode "thresholds", Grafana merges the values between two thresholds and names them after these, even
 * if they have value mappings: https://github.com/grafana/grafana/issues/40661
 */
function display(field, merge, theme) {
  const { color, thresholds } = field.config;
  if (!merge || color?.mode !== 'thresholds' || !thresholds?.steps.length) {
    return (value) => {
      const shown = field.display(value);
      return { text: formattedValueToString(shown), color: shown.color };
    };
  }
  const steps = thresholds.steps.map((step) => ({
    from: step.value,
    text: `${step.value}+`,
    color: theme.visualization.getColorByName(step.color),
  }));
  return (value) => steps.findLast((step) => value >= step.from);
}

/** Returns the bands of a series: start and end in milliseconds, text and colour. */
function bands(times, field, show, merge) {
  const interval = times.config.interval ?? Infinity;
  const found = [];
  times.values.forEach((start, index) => {
    const last = found.at(-1);
    const value = field.values[index];
    const band = { start, end: start + interval, value, ...show(value) };
    const isAdjacent = last && start <= last.end + interval / 2;
    if (isAdjacent && merge && last.text === band.text && last.color === band.color) {
      last.end = band.end;
      return;
    }
    if (isAdjacent) {
      last.end = start;
    }
    found.push(band);
  });
  return found;
}

export function Timeline({ data, height, options, timeRange, timeZone, width }) {
  const theme = useTheme2();
  const rows = useMemo(
    () =>
      data.series.flatMap((frame) => {
        const times = frame.fields.find(({ type }) => type === FieldType.time);
        const field = frame.fields.find(({ type }) => type === FieldType.number);
        return times && field
          ? [
              {
                name: getFieldDisplayName(field, frame, data.series),
                bands: bands(times, field, display(field, options.mergeValues, theme), options.mergeValues),
              },
            ]
          : [];
      }),
    [data.series, options, theme],
  );
  const opacity = (data.series[0]?.fields[1]?.config.custom?.fillOpacity ?? 70) / 100;
  const range = useMemo(() => [timeRange.from.valueOf(), timeRange.to.valueOf()], [timeRange]);
  const config = useMemo(() => {
    const builder = new UPlotConfigBuilder(timeZone);
    builder.addScale({
      scaleKey: 'x',
      isTime: true,
      orientation: ScaleOrientation.Horizontal,
      direction: ScaleDirection.Right,
      range: () => range,
    });
    builder.addScale({
      scaleKey: 'y',
      isTime: false,
      orientation: ScaleOrientation.Vertical,
      direction: ScaleDirection.Up,
      distribution: ScaleDistribution.Ordinal,
      range: [0, 1],
    });
    builder.addAxis({
      scaleKey: 'x',
      isTime: true,
      placement: AxisPlacement.Bottom,
      timeZone,
      theme,
      grid: { show: true },
    });
    builder.addAxis({
      scaleKey: 'y',
      placement: AxisPlacement.Left,
      theme,
      grid: { show: false },
      ticks: { show: false },
      gap: 15,
      splits: () => rows.map((_, index) => 1 - (index + 0.5) / rows.length),
      values: () => rows.map(({ name }) => name),
    });
    builder.addSeries({ scaleKey: 'y', theme, show: true, pathBuilder: () => null, pointsBuilder: () => false });
    builder.addHook('draw', (plot) => drawBands(plot, rows, options, opacity, theme));
    return builder;
  }, [rows, options, opacity, range, theme, timeZone]);

  if (!rows.length) {
    return <div className="rig-centred">No data in response</div>;
  }
  const { legend } = options;
  const items = new Map(rows.flatMap((row) => row.bands.map(({ text, color }) => [text, color])));
  return (
    <VizLayout
      width={width}
      height={height}
      legend={
        legend.showLegend ? (
          <VizLayout.Legend placement={legend.placement}>
            <VizLegend
              displayMode={legend.displayMode}
              items={[...items].map(([label, color]) => ({ label, color, yAxis: 1 }))}
              placement={legend.placement}
            />
          </VizLayout.Legend>
        ) : null
      }
    >
      {(plotWidth, plotHeight) => (
        <UPlotChart
          config={config}
          data={[range, [0.5, 0.5]]}
          height={plotHeight}
          timeRange={timeRange}
          width={plotWidth}
        />
      )}
    </VizLayout>
  );
}

function drawBands(plot, rows, options, opacity, theme) {
  const { ctx } = plot;
  const { left, top, width, height } = plot.bbox;
  const rowHeight = height / rows.length;
  const bandHeight = rowHeight * (options.rowHeight ?? 0.9);
  const position = (time) => Math.min(left + width, Math.max(left, plot.valToPos(time, 'x', true)));
  ctx.save();
  ctx.font = `${FONT_SIZE * devicePixelRatio}px ${theme.typography.fontFamily}`;
  ctx.textBaseline = 'middle';
  ctx.textAlign = 'left';
  rows.forEach((row, index) => {
    const y = top + rowHeight * index + (rowHeight - bandHeight) / 2;
    for (const { start, end, text, color } of row.bands) {
      const x = position(start);
      const bandWidth = Math.max(1, position(end) - x);
      ctx.globalAlpha = opacity;
      ctx.fillStyle = color;
      ctx.fillRect(x, y, bandWidth, bandHeight);
      ctx.globalAlpha = 1;
      if (options.showValue !== 'never' && ctx.measureText(text).width + 2 * PADDING < bandWidth) {
        ctx.fillStyle = theme.colors.getContrastText(color);
        ctx.fillText(text, x + PADDING, y + bandHeight / 2);
      }
    }
  });
  ctx.restore();
}
