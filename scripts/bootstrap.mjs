/**
 * The door to every command: `npm run demo` and `npm test` must work as the only command in a fresh clone, where there is
 * neither node_modules nor a Node that runs TypeScript. So this file is plain JavaScript for any Node since 18: it
 * installs the npm packages when they are missing or out of date, then runs the task with the Node 24 among them.
 *
 *   node scripts/bootstrap.mjs TASK [ARGUMENT…]
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const node = join(root, 'node_modules', 'node', 'bin', 'node');

/** Task: what to run after set-up, and whether it needs the machine (QEMU, kernel, images) set up first. */
const tasks = {
  setup: { machine: true, run: [] },
  demo: { machine: true, run: ['src/main.ts', 'demo'] },
  test: { machine: false, run: ['scripts/test.ts'] },
  check: { machine: false, run: ['scripts/check.ts'] },
  bench: { machine: true, run: ['test/perf/bench.ts'] },
  soak: { machine: true, run: ['test/perf/soak.ts'] },
  attack: { machine: true, run: ['scripts/test.ts', '--only', 'attack'] },
  format: { machine: false, run: ['node_modules/@biomejs/biome/bin/biome', 'check', '--write', '.'] },
};

const [name = '', ...args] = process.argv.slice(2);
const task = tasks[name];
if (task === undefined) {
  console.error(`bootstrap: no task "${name}"; there are ${Object.keys(tasks).join(', ')}`);
  process.exit(2);
}
installPackages();
if (task.machine) {
  const forSetup = name === 'setup' ? args : [];
  run(['scripts/setup.ts', ...forSetup]);
}
if (task.run.length > 0) run([...task.run, ...args]);

function installPackages() {
  const wanted = createHash('sha256').update(readFileSync(join(root, 'package-lock.json'))).digest('hex');
  const stamp = join(root, 'node_modules', '.mayfly-lock');
  if (existsSync(node) && existsSync(stamp) && readFileSync(stamp, 'utf8') === wanted) return;
  console.error('mayfly: installing npm packages into node_modules (Node 24 is one of them) …');
  // The package `node` fetches its binary in a preinstall script, so scripts have to be allowed for this call.
  const npm = spawnSync('npm', ['ci', '--ignore-scripts=false', '--no-audit', '--no-fund', '--loglevel=error'], {
    cwd: root,
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  if (npm.status !== 0 || !existsSync(node)) {
    console.error('mayfly: npm packages could not be installed; see the messages above.');
    console.error('        Remedy: check that the npm registry can be reached, then run the command again.');
    process.exit(3);
  }
  writeFileSync(stamp, wanted);
}

function run(command) {
  const { status, signal, error } = spawnSync(node, command, { cwd: root, stdio: 'inherit', env: environment() });
  if (error !== undefined) throw error;
  if (status !== 0) process.exit(status ?? (signal === 'SIGINT' ? 130 : 143));
}

/** Child processes that say `node` get Node 24 as well. */
function environment() {
  return { ...process.env, PATH: `${dirname(node)}:${process.env.PATH ?? ''}` };
}
