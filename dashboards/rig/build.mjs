// Bundles the page with the packages of one version of Grafana.
//
//     node build.mjs VERSION PACKAGES OUT    # such as 13.2; folder with node_modules; folder for the page
import { existsSync } from 'node:fs';
import { copyFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const [version, packages, out] = process.argv.slice(2);
const source = path.join(path.dirname(fileURLToPath(import.meta.url)), 'src');
const modules = path.join(path.resolve(packages), 'node_modules');
const { build } = createRequire(`${modules}/`)('esbuild');

// Some packages import files that the "exports" of other packages do not list, or without their extension.
const unlistedFiles = {
  name: 'unlisted-files',
  setup({ onResolve }) {
    onResolve({ filter: /^(@grafana\/schema\/dist\/esm|systemjs\/dist)\// }, ({ path: name }) => {
      const extensions = ['.mjs', '.js', '.gen.mjs', '.gen.js', ''];
      const file = extensions.map((extension) => path.join(modules, name + extension)).find(existsSync);
      return file && { path: file };
    });
  },
};

// Versions of @grafana/scenes for Grafana 10.4 are under the AGPL. These are the names that a later one requires and
// that the packages of 10.4 do not have.
const laterNames = {
  '@grafana/data': `
    import { BusEventWithPayload } from 'original:@grafana/data';
    export class SetPanelAttentionEvent extends BusEventWithPayload {}
    SetPanelAttentionEvent.type = 'set-panel-attention';
    export const scopeFilterOperatorMap = {};`,
  '@grafana/runtime': `
    import { createContext } from 'react';
    export const ScopesContext = createContext();
    export const isExpressionReference = () => false;`,
  '@grafana/ui': 'export const ToggleAllState = {};',
};
const laterExports = {
  name: 'later-exports',
  setup({ onLoad, onResolve, resolve }) {
    onResolve({ filter: /^@grafana\/(data|runtime|ui)$/ }, ({ path: name, importer }) =>
      importer.includes('/@grafana/scenes/') ? { path: name, namespace: 'later' } : undefined,
    );
    onResolve({ filter: /^original:/ }, ({ path: name }) =>
      resolve(name.replace('original:', ''), { resolveDir: source, kind: 'import-statement' }),
    );
    onLoad({ filter: /.*/, namespace: 'later' }, ({ path: name }) => ({
      contents: `export * from 'original:${name}'; ${laterNames[name]}`,
      resolveDir: source,
    }));
  },
};

await build({
  entryPoints: [path.join(source, 'main.jsx')],
  outdir: out,
  bundle: true,
  format: 'iife',
  platform: 'browser',
  nodePaths: [modules],
  jsx: 'automatic',
  minifySyntax: true,
  logLevel: 'error',
  alias: {
    version: path.join(source, `version-${version}.jsx`),
    // The same interface, of react-router 6.
    ...(existsSync(path.join(modules, 'react-router-dom')) && { 'react-router-dom-v5-compat': 'react-router-dom' }),
  },
  define: { 'process.env.NODE_ENV': '"production"', 'process.env': '{}', 'process.version': '""', global: 'window' },
  loader: Object.fromEntries(
    ['eot', 'gif', 'png', 'svg', 'ttf', 'woff', 'woff2'].map((type) => [`.${type}`, 'dataurl']),
  ),
  mainFields: ['module', 'browser', 'main'],
  conditions: ['import', 'browser', 'module'],
  external: ['*.worker', 'crypto', 'fs', 'path'],
  plugins: [unlistedFiles, ...(version === '10.4' ? [laterExports] : [])],
});
await copyFile(path.join(source, 'page.html'), path.join(out, 'index.html'));
