/**
 * Goal: the command line, as a user meets it, with real VMs: the right output in the right place, a coded error that
 * says what to do for everything that can be wrong, and nothing left behind however it ends. Method: run `bin/mayfly`.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { chmod, mkdir, readdir, readFile, readlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { home, inFolder, openRig } from './rig.ts';

const root = join(import.meta.dirname, '../..');
let folder = '';
let leave = (): void => {};

before(async () => {
  const rig = await openRig();
  for (const image of ['node', 'python', 'shell']) await rig.template(image);
  await new Promise<void>((ready) => {
    void inFolder(async (made) => {
      folder = made;
      ready();
      await new Promise<void>((resolve) => { leave = resolve; });
    });
  });
});

after(() => leave());

interface Ended {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

function start(args: readonly string[], env: Readonly<Record<string, string>> = {}): ChildProcess {
  return spawn(join(root, 'bin/mayfly'), args, { env: { ...process.env, MAYFLY_HOME: home, ...env }, cwd: folder });
}

function end(child: ChildProcess, input = ''): Promise<Ended> {
  let [out, err] = ['', ''];
  child.stdout?.setEncoding('utf8').on('data', (text: string) => { out += text; });
  child.stderr?.setEncoding('utf8').on('data', (text: string) => { err += text; });
  child.stdin?.on('error', () => {}).end(input);
  return new Promise((resolve) => child.once('close', (code) => resolve({ code, out, err })));
}

async function mayfly(...args: string[]): Promise<Ended> {
  return await end(start(args));
}

async function source(name: string, text: string): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, text);
  return path;
}

async function runNode(text: string, ...options: string[]): Promise<Ended> {
  return await mayfly('run', '--handler', await source(`h${Math.abs(hash(text))}.mjs`, text), ...options);
}

function hash(text: string): number {
  return [...text].reduce((sum, char) => (sum * 31 + char.charCodeAt(0)) | 0, 7);
}

function assertError({ code, err }: Ended, exit: number, name: string, ...said: readonly RegExp[]): void {
  assert.match(err, new RegExp(`error ${name}:`));
  for (const pattern of said) assert.match(err, pattern);
  assert.match(err, /remedy /);
  assert.equal(code, exit, err);
}

/** VMs from this home: QEMU by program file, zombies aside, with a file of the home open. */
async function machines(): Promise<string[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const ours = await Promise.all(
    pids.map(async (pid) => {
      const program = await readlink(`/proc/${pid}/exe`).catch(() => '');
      if (!program.includes('qemu-system')) return false;
      const names = await readdir(`/proc/${pid}/fd`).catch(() => []);
      const files = await Promise.all(names.map((name) => readlink(`/proc/${pid}/fd/${name}`).catch(() => '')));
      return files.some((file) => file.startsWith(home));
    }),
  );
  return pids.filter((_, index) => ours[index] === true);
}

async function runFolders(): Promise<string[]> {
  return await readdir(join(home, 'run')).catch(() => []);
}

test('a Node handler with an npm package beside it: output on stdout and nothing else there', async () => {
  const handler = join(root, 'examples/dependency/handler.mjs');
  const { code, out } = await mayfly('run', '--handler', handler, '--data', '{"name":"you"}');
  assert.deepEqual([code, out], [0, '{"greeting":"Hello, you!"}\n']);
});

test('a Python handler; its log is on stderr', async () => {
  const handler = join(root, 'examples/python/handler.py');
  const { code, out, err } = await mayfly('run', '--handler', handler, '--data', '{"text":"a b a"}');
  assert.deepEqual([code, JSON.parse(out)], [0, { words: 3, most: [['a', 2], ['b', 1]] }]);
  assert.match(err, /counting 3 words/);
});

test('a shell executable with the event on stdin, the event from mayfly\'s own stdin', async () => {
  const child = start(['run', '--exec', join(root, 'examples/shell/count.sh'), '--event', '-']);
  const { code, out } = await end(child, '{"a":1}');
  assert.equal(code, 0);
  assert.ok((JSON.parse(out) as { bytes: number }).bytes > 100);
});

test('--env reaches a warm Node, a warm Python and an executable', async () => {
  const env = ['--env', 'GREETING=hello', '--env', 'TZ=Etc/GMT-5'];
  const handler = 'const early = process.env.GREETING; export default () => [early, process.env.TZ];';
  const node = await runNode(handler, ...env);
  assert.deepEqual([node.code, node.out], [0, '["hello","Etc/GMT-5"]\n'], node.err);
  const code = 'import os\nearly = os.environ["GREETING"]\ndef handler(e, c):\n    return [early, os.environ["TZ"]]\n';
  const python = await mayfly('run', '--handler', await source('env.py', code), ...env);
  assert.deepEqual([python.code, python.out], [0, '["hello","Etc/GMT-5"]\n'], python.err);
  const printed = ['-c', 'echo "\\"$GREETING $HOME\\""'];
  const shell = await mayfly('run', '--program', '/bin/sh', ...env, '--', ...printed);
  assert.deepEqual([shell.code, shell.out], [0, '"hello /tmp"\n'], shell.err);
});

test('--json is one object with output, proof, timeline, isolation and evidence', async () => {
  const { code, out } = await runNode('export default (e) => e.data.n + 1;', '--data', '{"n":41}', '--json');
  interface Answer extends Readonly<Record<string, unknown>> {
    readonly timeline: readonly { readonly stage: string }[];
    readonly proof: { readonly differences: readonly unknown[] };
    readonly code: { readonly digest: string; readonly files: number };
  }
  const answer = JSON.parse(out) as Answer;
  assert.deepEqual([code, answer['ok'], answer['output'], answer['isolation'] === 'fake'], [0, true, 42, false]);
  assert.deepEqual(answer.proof.differences, []);
  assert.deepEqual(answer.code.files, 1);
  assert.match(answer.code.digest, /^sha256:[0-9a-f]{64}$/);
  assert.deepEqual(
    answer.timeline.map(({ stage }) => stage),
    ['profile', 'template', 'clone', 'restore', 'uniqueness', 'proof', 'execute', 'validate', 'release'],
  );
  assert.deepEqual(await runFolders(), []);
});

test('what cannot be used as given', async () => {
  assertError(await mayfly('run', '--handler', 'nowhere.mjs'), 2, 'E_HANDLER_MISSING', /nowhere\.mjs/);
  assertError(await mayfly('run', '--handler', '.'), 2, 'E_HANDLER_MISSING', /folder/);
  const fine = await source('fine.mjs', 'export default () => 1;');
  assertError(await mayfly('run', '--handler', fine, '--image', 'nothing'), 2, 'E_IMAGE_UNKNOWN', /node/, /python/);
  assertError(await mayfly('run', '--handler', fine, '--data', '{"a":'), 2, 'E_EVENT_INVALID');
  assertError(await mayfly('run', '--handler', fine, '--event', 'no.json'), 2, 'E_USAGE', /no\.json/);
  assertError(await mayfly('run', '--handler', fine, '--memory', '1M'), 2, 'E_LIMIT_INVALID', /--memory|memory/);
  assertError(await mayfly('run', '--handler', fine, '--timeout', 'soon'), 2, 'E_USAGE', /--timeout/);
  assertError(await mayfly('run'), 2, 'E_USAGE', /nothing to run/);
  assertError(await mayfly('rum'), 2, 'E_USAGE', /run/);
  assert.deepEqual(await runFolders(), []);
});

test('no set-up, no QEMU: said as that', async () => {
  const fine = await source('fine.mjs', 'export default () => 1;');
  const nowhere = await end(start(['run', '--handler', fine], { MAYFLY_HOME: join(folder, 'empty') }));
  assertError(nowhere, 3, 'E_SETUP_MISSING', /npm run setup/);
});

test('a syntax error is shown with its file, line and source', async () => {
  const ended = await runNode('export default async () => {\n  return (1 +;\n};\n');
  assertError(ended, 1, 'E_FUNCTION_LOAD', /h\d+\.mjs:2/, /return \(1 \+;/, /SyntaxError/);
});

test('an exception is shown with its stack, in Node and in Python', async () => {
  const inner = 'function inner() { throw new TypeError("broken inside"); }';
  const node = await runNode(`${inner}\nexport default async () => inner();`);
  assertError(node, 1, 'E_FUNCTION_THREW', /TypeError: broken inside/, /at inner .*:1:/);
  const lines = [
    'def inner():', '    raise ValueError("broken inside")', 'def handler(event, context):', '    inner()', '',
  ];
  const python = await mayfly('run', '--handler', await source('h.py', lines.join('\n')));
  assertError(python, 1, 'E_FUNCTION_THREW', /ValueError: broken inside/, /h\.py", line 2/);
});

test('results that JSON cannot express', async () => {
  assertError(await runNode('export default () => 10n;'), 1, 'E_OUTPUT_INVALID', /BigInt/);
  const circle = await runNode('export default () => { const a = {}; a.a = a; return a; };');
  assertError(circle, 1, 'E_OUTPUT_INVALID', /circular/i);
  const nan = [
    await runNode('export default () => ({ a: 0 / 0 });'),
    await mayfly('run', '--handler', await source('nan.py', 'def handler(e, c):\n    return float("nan")\n')),
  ];
  for (const each of nan) assertError(each, 1, 'E_OUTPUT_INVALID', /JSON has no such number/, /in place of NaN/);
  const shell = await source('s.sh', '#!/bin/sh\necho not json\n');
  await chmod(shell, 0o755);
  assertError(await mayfly('run', '--exec', shell), 1, 'E_OUTPUT_INVALID');
});

test('a JavaScript heap may fill what was granted, and a leak of many small objects ends for memory', async () => {
  const limit = "import v8 from 'node:v8'; export default () => v8.getHeapStatistics().heap_size_limit;";
  const { out, err } = await runNode(limit, '--memory', '512M');
  assert.ok(Number(out) > 512 * 1024 ** 2, out + err);
  // It takes 5 to 9 s; the time is for a machine with much else to do.
  const room = ['--memory', '128M', '--timeout', '2m'];
  const leak = await runNode('export default () => { const a = []; for (;;) a.push({ b: [1] }); };', ...room);
  assertError(leak, 1, 'E_FUNCTION_MEMORY', /128 MiB/);
});

test('too late, too much memory, too much output, no result: each says so', async () => {
  const endless = await runNode('export default () => { for (;;); };', '--timeout', '1s');
  assertError(endless, 1, 'E_FUNCTION_TIMEOUT', /1000 ms/);
  const hungry = 'export default () => { const a = []; for (;;) a.push(Buffer.alloc(1e6, 1)); };';
  assertError(await runNode(hungry, '--memory', '128M'), 1, 'E_FUNCTION_MEMORY', /128/);
  assertError(await runNode('export default () => "x".repeat(8e6);'), 1, 'E_OUTPUT_TOO_LARGE');
  assertError(await runNode('export default () => process.exit(3);'), 1, 'E_FUNCTION_EXIT', /3/);
});

test('Ctrl-C at any moment ends with 130, no machine and no run folder', async () => {
  const slow = await source('slow.mjs', 'export default () => new Promise((done) => setTimeout(done, 60_000));');
  for (const delay of [80, 250, 500, 900, 1_500, 2_500]) {
    const child = start(['run', '--handler', slow]);
    const ended = end(child);
    await new Promise((resolve) => setTimeout(resolve, delay));
    child.kill('SIGINT');
    const { code, err } = await ended;
    // Null: Node itself was still loading, and a shell calls that 130 as well.
    assert.ok(code === 130 || (code === null && err === ''), `after ${delay} ms: ${code} ${err}`);
    assert.deepEqual([await machines(), await runFolders()], [[], []], `after ${delay} ms`);
  }
});

test('kill -9 in the middle of a run leaves no machine, and the next run seals what was left', async () => {
  const code = 'export default () => { console.log("running"); return new Promise(() => {}); };';
  const slow = await source('slow.mjs', code);
  const child = start(['run', '--handler', slow]);
  const ended = end(child);
  await new Promise<void>((resolve) => {
    child.stderr?.on('data', (text: string) => text.includes('running') && resolve());
  });
  const left = await runFolders();
  assert.equal(left.length, 1);
  child.kill('SIGKILL');
  await ended;
  for (let waited = 0; (await machines()).length > 0 && waited < 5_000; waited += 20) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  assert.deepEqual(await machines(), []);
  const next = await runNode('export default () => "next";');
  assert.deepEqual([next.code, next.out, await runFolders()], [0, '"next"\n', []]);
  const evidence = await readFile(join(home, 'evidence/evidence.jsonl'), 'utf8');
  const record = evidence.split('\n').find((line) => line.includes(left[0] ?? 'none'));
  assert.match(record ?? '', /E_ABANDONED/);
  const check = await mayfly('evidence', '--json');
  assert.equal((JSON.parse(check.out) as { ok: boolean }).ok, true);
});

test('doctor, images and version tell what is here, also as JSON', async () => {
  type Judged = { readonly name: string; readonly level: string; readonly remedy: string };
  const { checks } = JSON.parse((await mayfly('doctor', '--json')).out) as { checks: readonly Judged[] };
  assert.ok(checks.length >= 10);
  for (const { level, remedy, name } of checks) assert.equal(level === 'ok', remedy === '', name);
  assert.match((await mayfly('images')).out, /node[\s\S]*python[\s\S]*shell/);
  assert.match((await mayfly('version')).out, /qemu\s+QEMU \d/);
  for (const command of ['run', 'doctor', 'images', 'version', 'evidence']) {
    assert.match((await mayfly(command, '--help')).out, /Example/, command);
  }
});

test('two runs at once do not meet', async () => {
  await mkdir(join(folder, 'pair'), { recursive: true });
  const answers = await Promise.all(['a', 'b'].map((name) => runNode(`export default () => '${name}';`)));
  assert.deepEqual(answers.map(({ code, out }) => [code, out]), [[0, '"a"\n'], [0, '"b"\n']]);
});
