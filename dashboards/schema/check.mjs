// Checks dashboards against the types of Grafana's own schema, which are published as TypeScript: the dashboard, and of its panels the
// options and the custom fields, which the dashboard's type leaves open.
//   node check.mjs DASHBOARD.json...
// Schemas are made once, and kept in the folder schemas.
import fs from 'node:fs';
import path from 'node:path';
import Ajv from 'ajv';
import {createGenerator} from 'ts-json-schema-generator';

const here = import.meta.dirname;
const types = path.join(here, 'node_modules/@grafana/schema/dist/types/raw');

function schemaOf(name, folder, type) {
  const file = path.join(here, 'schemas', `${name}.json`);
  if (!fs.existsSync(file)) {
    const source = path.join(types, folder, 'x');
    const [declarations] = fs.readdirSync(source).filter(f => f.endsWith('.d.ts'));
    const schema = createGenerator({path: path.join(source, declarations), type, skipTypeCheck: true}).createSchema(type);
    fs.mkdirSync(path.dirname(file), {recursive: true});
    fs.writeFileSync(`${file}.partial`, JSON.stringify(schema));
    fs.renameSync(`${file}.partial`, file);
  }
  return JSON.parse(fs.readFileSync(file));
}

const ajv = new Ajv({strict: false, allErrors: true, allowUnionTypes: true});
let wrong = 0;
function check(where, schema, value) {
  const validate = ajv.compile(schema);
  if (validate(value)) return;
  for (const e of validate.errors) {
    wrong++;
    console.error(`${where}${e.instancePath}: ${e.message} ${JSON.stringify(e.params)}`);
  }
}

for (const file of process.argv.slice(2)) {
  const dashboard = JSON.parse(fs.readFileSync(file));
  const name = path.basename(file);
  // The type knows nothing of what an annotation's data source needs.
  for (const annotation of dashboard.annotations.list) for (const own of ['expr', 'step', 'titleFormat']) delete annotation[own];
  check(name, schemaOf('dashboard', 'dashboard', 'Dashboard'), dashboard);
  for (const panel of dashboard.panels.flatMap(p => p.type === 'row' ? p.panels : [p])) {
    const where = `${name}, panel "${panel.title}"`, folder = `composable/${panel.type.replace('-', '')}/panelcfg`;
    check(`${where} options`, schemaOf(`${panel.type}-options`, folder, 'Options'), panel.options);
    const fields = schemaOf(`${panel.type}-fields`, folder, 'FieldConfig');
    if (panel.fieldConfig.defaults.custom) check(`${where} custom`, fields, panel.fieldConfig.defaults.custom);
    const known = fields.definitions.FieldConfig.properties;
    for (const {properties} of panel.fieldConfig.overrides) {
      for (const {id, value} of properties.filter(p => p.id.startsWith('custom.'))) {
        const field = id.slice('custom.'.length);
        check(`${where} override ${id}`, known?.[field] ? {...known[field], definitions: fields.definitions} : false, value);
      }
    }
  }
}
if (wrong) process.exit(1);
