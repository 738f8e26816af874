// Draws every dashboard with data of a Prometheus, by Grafana's own components, into PNG files.
//   node pictures.mjs PROMETHEUS FROM TO FOLDER DASHBOARD.json... [-- VARIABLE=VALUE...]
// FROM and TO are seconds since 1970. It is not Grafana: variables are replaced beforehand, and provisioning is not tried.
import fs from 'node:fs';
import path from 'node:path';
import {build, preview} from 'vite';
import {chromium} from 'playwright-core';

const [prometheus, from, to, folder, ...rest] = process.argv.slice(2);
const end = rest.includes('--') ? rest.indexOf('--') : rest.length;
const seconds = to - from, step = Math.max(1, Math.ceil(seconds / 400)), start = Math.floor(from / step) * step;
const variables = {
  __rate_interval: `${Math.max(15, 4 * step)}s`, __range: `${seconds}s`, __range_s: `${seconds}`, __interval: `${step}s`,
  ...Object.fromEntries(rest.slice(end + 1).map(pair => pair.split('=', 2))),
};
const names = Object.keys(variables).sort((a, b) => b.length - a.length);
const replace = expr => expr.replace(new RegExp(`\\$(${names.join('|')})`, 'g'), (_, name) => variables[name]);

const files = rest.slice(0, end).map(file => path.resolve(file)), out = path.resolve(folder);
process.chdir(import.meta.dirname);
await build({logLevel: 'error'});
const server = await preview({preview: {host: '127.0.0.1', port: 0, proxy: {'/api': prometheus}}});
const browser = await chromium.launch({executablePath: '/usr/bin/chromium', args: ['--no-sandbox', '--disable-gpu']});
for (const file of files) {
  const dashboard = JSON.parse(fs.readFileSync(file));
  for (const target of dashboard.panels.flatMap(p => p.targets ?? [])) target.expr = replace(target.expr);
  fs.writeFileSync('dist/show.json', JSON.stringify({dashboard, from: start, to: start + seconds, step}));
  const bottom = Math.max(...dashboard.panels.map(p => p.gridPos.y + p.gridPos.h));
  const page = await browser.newPage({viewport: {width: 24 * 52 + 8, height: bottom * 36 + 8}});
  page.on('pageerror', error => { process.exitCode = 1; console.error(path.basename(file), String(error)); });
  await page.goto(`http://127.0.0.1:${server.httpServer.address().port}/`);
  const ready = () => document.querySelector('[data-ready]') && !document.querySelector('[data-ready=false]');
  await page.waitForFunction(ready, null, {timeout: 60_000});
  await page.waitForTimeout(1000); // charts are drawn after their data is there
  await page.screenshot({path: path.join(out, `${path.basename(file, '.json')}.png`)});
  await page.close();
}
await browser.close();
await server.close();
