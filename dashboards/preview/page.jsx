// Draws a dashboard with Grafana's own components and answers of a real Prometheus. State timelines are drawn here: Grafana does not
// publish that panel; their texts and colors are Grafana's. What is shown is said by /show.json: the dashboard, and the range of time.
import {Fragment, useEffect, useState} from 'react';
import {createRoot} from 'react-dom/client';
import {lastValueFrom} from 'rxjs';
import {
  applyFieldOverrides, createTheme, dateTime, FieldType, getDisplayProcessor, getFieldDisplayValues, LoadingState,
  standardFieldConfigEditorRegistry, standardTransformers, standardTransformersRegistry, ThemeContext, toDataFrame, transformDataFrame,
} from '@grafana/data';
import {BigValue, GlobalStyles, PanelChrome, PortalContainer, Table, TimeSeries} from '@grafana/ui';

const column = 52, row = 36, gap = 8;
const theme = createTheme({colors: {mode: 'dark'}});
const {dashboard, from, to, step} = await (await fetch('/show.json')).json();
const range = {from: dateTime(from * 1e3), to: dateTime(to * 1e3), raw: {from: dateTime(from * 1e3), to: dateTime(to * 1e3)}};

// The fields that panels may set, of Grafana's own and of the panels.
const field = custom => path => ({
  id: custom ? `custom.${path}` : path, path, isCustom: custom, name: path, override: () => null, editor: () => null,
  process: value => value, shouldApply: () => true, settings: {},
});
standardFieldConfigEditorRegistry.setInit(() => [
  ...['displayName', 'unit', 'min', 'max', 'decimals', 'color', 'thresholds', 'mappings', 'noValue', 'links'].map(field(false)),
  ...['drawStyle', 'lineWidth', 'lineStyle', 'lineInterpolation', 'fillOpacity', 'showPoints', 'spanNulls', 'stacking', 'axisSoftMin', 'axisWidth',
    'cellOptions', 'align', 'inspect', 'minWidth', 'hideFrom'].map(field(true)),
]);
standardTransformersRegistry.setInit(() => [
  standardTransformers.sortByTransformer, standardTransformers.groupingToMatrixTransformer, standardTransformers.mergeTransformer,
  standardTransformers.organizeFieldsTransformer,
]
  .map(t => ({id: t.id, name: t.name, editor: () => null, transformation: async () => t})));

const legend = (format, labels) => format.replace(/\{\{(\w+)\}\}/g, (_, name) => labels[name] ?? '');

async function ask(target, several) {
  const form = new URLSearchParams(target.instant ? {query: target.expr, time: to} : {query: target.expr, start: from, end: to, step});
  const answer = await (await fetch(`/api/v1/query${target.instant ? '' : '_range'}`, {method: 'POST', body: form})).json();
  if (answer.status !== 'success') throw new Error(`${target.expr}: ${answer.error}`);
  const number = text => (text === 'NaN' ? null : +text);
  const points = s => (s.values ?? [s.value]).map(([at, value]) => [at * 1e3, number(value)]);
  const series = answer.data.result.map(s => ({labels: s.metric, points: points(s)}));
  if (target.format === 'table') return [table(series, several ? `Value #${target.refId}` : 'Value')];
  return series.map(({labels, points}) => frame(target, labels, spread(points, target)));
}

// spread puts gaps where there is no point: a step without one.
function spread(points, target) {
  if (target.instant) return points;
  const known = new Map(points), all = [];
  for (let at = from * 1e3; at <= to * 1e3; at += step * 1e3) all.push([at, known.get(at) ?? null]);
  return all;
}

const frame = (target, labels, points) => toDataFrame({refId: target.refId, fields: [
  {name: 'Time', type: FieldType.time, values: points.map(p => p[0]), config: {interval: step * 1e3}},
  {
    name: 'Value', type: FieldType.number, labels, values: points.map(p => p[1]),
    config: {displayNameFromDS: legend(target.legendFormat, labels)},
  },
]});

// table names values as Grafana does: by their queries, where there are several.
function table(series, value) {
  const names = [...new Set(series.flatMap(s => Object.keys(s.labels)))].sort();
  return toDataFrame({fields: [
    {name: 'Time', type: FieldType.time, values: series.map(s => s.points[0][0])},
    ...names.map(name => ({name, type: FieldType.string, values: series.map(s => s.labels[name])})),
    {name: value, type: FieldType.number, values: series.map(s => s.points[0][1])},
  ]});
}

async function load(panel) {
  let data = (await Promise.all(panel.targets.map(t => ask(t, panel.targets.length > 1)))).flat();
  if (panel.transformations) data = await lastValueFrom(transformDataFrame(panel.transformations, data));
  data = applyFieldOverrides({data, fieldConfig: panel.fieldConfig, replaceVariables: text => text, theme, timeZone: 'utc'});
  for (const f of data.flatMap(d => d.fields)) {
    if (f.type !== FieldType.time) f.config.custom = {...panel.fieldConfig.defaults.custom, ...f.config.custom};
    f.display ??= getDisplayProcessor({field: f, theme, timeZone: 'utc'});
  }
  return data;
}

function Stat({panel, data, width, height}) {
  const {options, fieldConfig} = panel;
  const values = getFieldDisplayValues({
    fieldConfig, reduceOptions: options.reduceOptions, replaceVariables: text => text, theme, data, timeZone: 'utc',
    sparkline: options.graphMode !== 'none',
  });
  const none = {text: fieldConfig.defaults.noValue ?? 'No data', numeric: NaN};
  if (data.length === 0) return <BigValue value={none} theme={theme} width={width} height={height}/>;
  return values.map((v, i) => <BigValue key={i} value={{...v.display, title: options.textMode === 'auto' ? undefined : v.display.title}}
    sparkline={v.sparkline} theme={theme} width={width} height={height / values.length} colorMode={options.colorMode}
    graphMode={options.graphMode} justifyMode={options.justifyMode} textMode={options.textMode}/>);
}

function Timeline({data, width, height}) {
  const names = 90, axis = 20, high = (height - axis) / Math.max(1, data.length), scale = (width - names - 8) / (to - from) / 1e3;
  const text = {fill: theme.colors.text.primary, fontSize: 12, dominantBaseline: 'middle'};
  const bands = values => {
    const list = [];
    for (const [at, value] of values) {
      const last = list.at(-1);
      if (last && last.value === value) last.to = at + step * 1e3;
      else list.push({value, from: at, to: at + step * 1e3});
    }
    return list.filter(b => b.value !== null);
  };
  const ticks = Array.from({length: 6}, (_, i) => from + (i + 0.5) * (to - from) / 6);
  return <svg width={width} height={height}>{data.map((d, i) => {
    const [time, value] = d.fields;
    return <Fragment key={i}>
      <text {...text} x={0} y={(i + 0.5) * high}>{value.config.displayNameFromDS}</text>
      {bands(time.values.map((at, j) => [at, value.values[j]])).map((b, j) => {
        const shown = value.display(b.value), x = names + (b.from - from * 1e3) * scale, w = (b.to - b.from) * scale;
        return <Fragment key={j}>
          <rect x={x} y={(i + 0.08) * high} width={w} height={0.84 * high} fill={shown.color} fillOpacity={0.8}/>
          {w > 8 * shown.text.length && <text {...text} x={x + 6} y={(i + 0.5) * high} fill="#111217">{shown.text}</text>}
        </Fragment>;
      })}
    </Fragment>;
  })}{ticks.map(at => <text key={at} {...text} fill={theme.colors.text.secondary} textAnchor="middle" x={names + (at - from) * 1e3 * scale}
    y={height - axis / 2}>{new Date(at * 1e3).toISOString().slice(11, to - from < 3600 ? 19 : 16)}</text>)}</svg>;
}

const kinds = {
  stat: Stat,
  'state-timeline': Timeline,
  timeseries: ({panel, data, width, height}) => <TimeSeries frames={data} structureRev={1} timeRange={range} timeZone="utc"
    width={width} height={height} legend={panel.options.legend}/>,
  table: ({data, width, height}) => <Table data={data[0]} width={width} height={height} columnMinWidth={36} cellHeight="sm"/>,
};

function Panel({panel}) {
  const [data, setData] = useState(null);
  useEffect(() => { load(panel).then(setData); }, []);
  const {x, y, w, h} = panel.gridPos, Kind = kinds[panel.type];
  return <div data-ready={data !== null} style={{position: 'absolute', left: x * column + gap, top: y * row + gap}}>
    <PanelChrome title={panel.title} width={w * column - gap} height={h * row - gap} padding="md"
      loadingState={data ? LoadingState.Done : LoadingState.Loading}>
      {(width, height) => data && (data.length > 0 || panel.type === 'stat' ? <Kind {...{panel, data, width, height}}/> : panel.fieldConfig.defaults.noValue ?? 'No data')}
    </PanelChrome>
  </div>;
}

// Row is a collapsed one, as Grafana shows it.
function Row({panel}) {
  const {y} = panel.gridPos;
  return <div style={{position: 'absolute', left: gap, top: y * row + gap, lineHeight: `${row - gap}px`, color: theme.colors.text.primary}}>
    › {panel.title} <span style={{color: theme.colors.text.secondary}}>({panel.panels.length} panels)</span>
  </div>;
}

createRoot(document.getElementById('root')).render(<ThemeContext.Provider value={theme}>
  <GlobalStyles/>{dashboard.panels.map(p => p.type === 'row' ? <Row key={p.id} panel={p}/> : <Panel key={p.id} panel={p}/>)}<PortalContainer/>
</ThemeContext.Provider>);
