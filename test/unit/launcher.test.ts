/**
 * Goal: `bin/mayfly` becomes a Node that can run Mayfly, from wherever it is called, or says what to do.
 * Method: a package of stand-ins in a temporary folder; each stand-in for Node prints who it is and its arguments.
 */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import {
  chmodSync, copyFileSync, mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';

const launcher = join(import.meta.dirname, '../../bin/mayfly');

interface Bench {
  readonly folder: string;
  /** Writes a stand-in for Node that says its name, its process id and its arguments, one per line. */
  node(path: string, version: string): void;
  run(command: string, args?: readonly string[]): { status: number | null; stdout: string; stderr: string };
}

function bench(t: TestContext): Bench {
  const folder = realpathSync(mkdtempSync(join(tmpdir(), 'mayfly-launcher-')));
  t.after(() => rmSync(folder, { recursive: true }));
  mkdirSync(join(folder, 'package/bin'), { recursive: true });
  mkdirSync(join(folder, 'path'));
  copyFileSync(launcher, join(folder, 'package/bin/mayfly'));
  // The launcher's own tools and no other program: above all no Node of this machine.
  for (const tool of ['sh', 'dirname', 'readlink']) {
    const found = spawnSync('sh', ['-c', `command -v ${tool}`], { encoding: 'utf8' }).stdout.trim();
    symlinkSync(found, join(folder, 'path', tool));
  }
  return {
    folder,
    node(path, version) {
      const file = join(folder, path);
      mkdirSync(dirname(file), { recursive: true });
      const asked = `if [ "$1" = -p ]; then echo ${version}; exit; fi`;
      const script = ['#!/bin/sh', asked, `echo ${path} $$`, `printf '%s\\n' "$@"`];
      writeFileSync(file, `${script.join('\n')}\n`);
      chmodSync(file, 0o755);
    },
    run: (command, args = []) =>
      spawnSync(join(folder, command), args, { encoding: 'utf8', cwd: folder, env: { PATH: join(folder, 'path') } }),
  };
}

test('the Node of the package is taken before any other, without asking it anything', (t) => {
  const { folder, node, run } = bench(t);
  node('package/node_modules/node/bin/node', '24');
  node('path/node', '26');
  const { status, stdout } = run('package/bin/mayfly', ['run', 'two words', '']);
  const [who, ...args] = stdout.trimEnd().split('\n');
  assert.equal(status, 0);
  assert.match(who ?? '', /^package\/node_modules\/node\/bin\/node /);
  assert.deepEqual(args, [join(folder, 'package/src/main.ts'), 'run', 'two words']);
  assert.ok(stdout.endsWith('two words\n\n'), 'an empty argument arrives');
});

test('links are followed, relative ones as well', (t) => {
  const { folder, node, run } = bench(t);
  node('package/node_modules/node/bin/node', '24');
  mkdirSync(join(folder, 'a/b'), { recursive: true });
  symlinkSync('../../package/bin/mayfly', join(folder, 'a/b/relative'));
  symlinkSync(join(folder, 'a/b/relative'), join(folder, 'absolute'));
  for (const command of ['a/b/relative', 'absolute']) {
    assert.ok(run(command).stdout.includes(join(folder, 'package/src/main.ts')), command);
  }
});

test('a published package runs what was compiled', (t) => {
  const { folder, node, run } = bench(t);
  node('package/node_modules/node/bin/node', '24');
  mkdirSync(join(folder, 'package/dist'));
  writeFileSync(join(folder, 'package/dist/main.js'), '');
  assert.ok(run('package/bin/mayfly').stdout.includes(join(folder, 'package/dist/main.js')));
});

test('another Node is good enough from version 24', (t) => {
  const { node, run } = bench(t);
  node('path/node', '24');
  assert.match(run('package/bin/mayfly').stdout, /^path\/node /);
});

test('without a Node that is new enough: exit code of the environment, and a remedy', (t) => {
  const { node, run } = bench(t);
  for (const found of [undefined, '20']) {
    if (found !== undefined) node('path/node', found);
    const { status, stdout, stderr } = run('package/bin/mayfly');
    assert.equal(status, 3);
    assert.equal(stdout, '');
    assert.match(stderr, /Node 24[\s\S]*Remedy: .*npm run setup/);
  }
});

test('compiled code is kept among the packages of a checkout, unless the caller has a place for it', (t) => {
  const { folder, node, run } = bench(t);
  node('package/node_modules/node/bin/node', '24');
  const program = join(folder, 'package/node_modules/node/bin/node');
  writeFileSync(program, '#!/bin/sh\necho "$NODE_COMPILE_CACHE"\n');
  assert.equal(run('package/bin/mayfly').stdout, `${join(folder, 'package/node_modules/.cache/compiled')}\n`);
  const env = { NODE_COMPILE_CACHE: '/elsewhere', PATH: join(folder, 'path') };
  const { stdout } = spawnSync(join(folder, 'package/bin/mayfly'), { encoding: 'utf8', env });
  assert.equal(stdout, '/elsewhere\n');
});

test('the launcher becomes Node: one process, which gets the signals', async (t) => {
  const { folder, node } = bench(t);
  node('package/node_modules/node/bin/node', '24');
  const child = spawn(join(folder, 'package/bin/mayfly'), { stdio: ['ignore', 'pipe', 'inherit'] });
  let stdout = '';
  for await (const part of child.stdout) stdout += String(part);
  assert.equal(stdout.split('\n')[0], `package/node_modules/node/bin/node ${child.pid}`);
});
