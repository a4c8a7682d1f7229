/**
 * The door to every command: `npm run demo` and `npm test` must work as the only command in a fresh clone, where there
 * is neither node_modules nor a Node that runs TypeScript. So this file is plain JavaScript for any Node since 18: it
 * installs the npm packages when they are missing or out of date, then runs the task with the Node 24 among them.
 *
 *   node scripts/bootstrap.mjs TASK [ARGUMENT…]
 */
import { spawn, spawnSync } from 'node:child_process';
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
  attack: { machine: false, run: ['scripts/test.ts', '--only', 'attack'] },
  format: { machine: false, run: ['node_modules/@biomejs/biome/bin/biome', 'check', '--write', '.'] },
};

const [name = '', ...args] = process.argv.slice(2);
const task = tasks[name];
if (task === undefined) {
  console.error(`bootstrap: no task "${name}"; there are ${Object.keys(tasks).join(', ')}`);
  process.exit(2);
}
installPackages();
if (task.machine) await run(['scripts/setup.ts', ...(name === 'setup' ? args : [])]);
if (task.run.length > 0) await run([...task.run, ...args]);

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
  if (npm.status !== 0) {
    const reason = npm.error === undefined ? '' : ` (${npm.error.message})`;
    console.error(`mayfly: npm packages could not be installed${reason}.`);
    console.error('        Remedy: check that npm reaches its registry, then run the command again.');
    process.exit(3);
  }
  if (!existsSync(node)) {
    console.error('mayfly: the npm package `node` has no program: npm was kept from running install scripts.');
    console.error('        Remedy: allow the script of this one package, `npm rebuild node --ignore-scripts=false`.');
    process.exit(3);
  }
  writeFileSync(stamp, wanted);
}

/** Returns when the command succeeded; ends with its exit code otherwise. */
async function run(command) {
  const env = {
    ...process.env,
    // Child processes that say `node` get Node 24 as well.
    PATH: `${dirname(node)}:${process.env.PATH ?? ''}`,
    // Stripping and compiling TypeScript is half of the CPU time of a short test file.
    NODE_COMPILE_CACHE: process.env.NODE_COMPILE_CACHE ?? join(root, 'node_modules', '.cache', 'compiled'),
  };
  const child = spawn(node, command, { cwd: root, stdio: 'inherit', env });
  // Outlives the child in any case, so that the prompt does not come back while it cleans up. A terminal sends Ctrl-C
  // to both of them; other signals, and all of them without a terminal, come only here and are passed on.
  const passOn = (signal) => {
    if (signal !== 'SIGINT' || !process.stdin.isTTY) child.kill(signal);
  };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, passOn);
  const [status, signal] = await new Promise((settle, fail) => {
    child.once('error', fail).once('exit', (...ending) => settle(ending));
  });
  for (const each of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.off(each, passOn);
  if (status !== 0) process.exit(status ?? ({ SIGINT: 130, SIGTERM: 143, SIGHUP: 129 }[signal] ?? 1));
}
