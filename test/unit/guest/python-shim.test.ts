/**
 * The Python runtime outside of a VM. Goal and method: see node-shim.test.ts. The image has CPython 3.11; any 3.11 or
 * later runs these tests.
 */
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { attempt } from '../../../scripts/setup/command.ts';
import { drive } from './channel.ts';
import type { Channel } from './channel.ts';

const shim = join(import.meta.dirname, '../../../guest/runtime/python/shim.py');
const python = await attempt(['python3', '-c', 'import ssl, sys; sys.exit(sys.version_info < (3, 11))']);
const skip = python.status === 0 ? false : 'python3 >= 3.11 with ssl is not installed';
let folder = '';

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mayfly-python-shim-'));
});

after(async () => {
  await rm(folder, { recursive: true, force: true });
});

interface RunOptions {
  readonly event?: unknown;
  readonly variables?: Readonly<Record<string, string>>;
}

async function run(code: string, { event = { id: '1' }, ...options }: RunOptions = {}): Promise<Channel> {
  const handler = join(folder, 'h.py');
  await writeFile(handler, code);
  const env = { PATH: process.env['PATH'] ?? '', HOME: '/tmp' };
  return await drive({ argv: ['python3', '-I', shim], env, handler, event, ...options });
}

test('event and context go in, the result and the logs come out', { skip }, async () => {
  await writeFile(join(folder, 'beside.py'), 'NAME = "beside"\n');
  const ended = await run(`import beside, sys
print("out")
def handler(event, context):
    print("err", file=sys.stderr)
    left = context.remaining_millis()
    return [event, context.run_id, context.memory_bytes, context.image, beside.NAME, 0 < left <= 60000]
`, { event: { data: ['ü', null, 1e300] } });
  assert.equal(ended.words, 'ready\nrenewed\n');
  assert.deepEqual(ended.reply, {
    ok: true, value: [{ data: ['ü', null, 1e300] }, '01TEST', 268_435_456, 'test', 'beside', true],
  });
  assert.deepEqual([ended.stdout, ended.stderr, ended.status], ['\nout\n', '\nerr\n', 0]);
});

test('a handler can be async', { skip }, async () => {
  const { reply } = await run('import asyncio\nasync def handler(e, c):\n  await asyncio.sleep(0.01)\n  return 42\n');
  assert.deepEqual(reply, { ok: true, value: 42 });
});

test('None is null', { skip }, async () => {
  assert.deepEqual((await run('def handler(event, context):\n    pass\n')).reply, { ok: true, value: null });
});

const failures: readonly (readonly [
  what: string, code: string, phase: string, name: string, message: RegExp, stack: RegExp
])[] = [
  ['syntax error', 'def handler(event, context):\n    x = = 1\n',
    'load', 'SyntaxError', /line 2/, /h\.py", line 2\n {4}x = = 1/],
  ['raises while loading', 'raise KeyError("early")\n', 'load', 'KeyError', /early/, /h\.py", line 1, in <module>/],
  ['no handler', 'x = 1\n', 'load', 'TypeError', /has no function/, /./],
  ['missing package', 'import no_such_package\n',
    'load', 'ModuleNotFoundError', /no_such_package/, /line 1, in <module>/],
  ['raises', 'def deep():\n    raise ValueError("boom")\ndef handler(e, c):\n    deep()\n',
    'call', 'ValueError', /^boom$/, /line 2, in deep/],
  ['async raises', 'async def handler(e, c):\n    raise ValueError("late")\n',
    'call', 'ValueError', /^late$/, /line 2, in handler/],
  ['cause',
    'def handler(e, c):\n  try:\n    1 / 0\n  except ArithmeticError as x:\n    raise OSError("a") from x\n',
    'call', 'OSError', /^a$/, /ZeroDivisionError[\s\S]*direct cause/],
  ['raising __str__',
    'class E(Exception):\n    def __str__(self):\n        raise KeyError\ndef handler(e, c):\n    raise E\n',
    'call', 'E', /cannot be had/, /./],
  ['NaN', 'def handler(e, c):\n    return {"a": float("nan")}\n', 'result', 'ValueError',
    /^NaN or Infinity cannot be a result: JSON has no such number$/, /./],
  ['set', 'def handler(e, c):\n    return {1, 2}\n', 'result', 'TypeError', /set is not JSON serializable/, /./],
  ['cycle', 'def handler(e, c):\n    a = []\n    a.append(a)\n    return a\n', 'result', 'ValueError', /Circular/, /./],
  ['lone surrogate', 'def handler(e, c):\n    return "\\ud800"\n', 'result', 'UnicodeEncodeError', /surrogates/, /./],
];
for (const [what, code, phase, name, message, stack] of failures) {
  test(`failure: ${what}`, { skip }, async () => {
    const { reply, status } = await run(code);
    assert.equal(reply?.ok, false);
    assert.deepEqual([reply.phase, reply.error?.name], [phase, name]);
    assert.match(reply.error?.message ?? '', message);
    assert.match(reply.error?.stack ?? '', stack);
    assert.doesNotMatch(reply.error?.stack ?? '', /shim\.py|asyncio|importlib/);
    assert.equal(status, 0);
  });
}

test('variables that the caller sets are there when the handler is loaded', { skip }, async () => {
  const code = `import os, time
early = os.environ["GREETING"]
def handler(event, context):
    return [early, time.localtime(0).tm_hour]
`;
  const { reply } = await run(code, { variables: { GREETING: 'hä=\n', TZ: 'Etc/GMT-5' } });
  assert.deepEqual(reply, { ok: true, value: ['hä=\n', 5] });
});

test('sys.exit ends without a reply and with its status', { skip }, async () => {
  const { reply, status } = await run('import sys\ndef handler(e, c):\n    sys.exit(3)\n');
  assert.deepEqual([reply, status], [undefined, 3]);
});

test('nothing may run when randomness cannot be renewed', { skip }, async () => {
  const broken = join(folder, 'broken.py');
  await writeFile(broken, `import runpy, ssl
def fail(*_): raise OSError("no entropy")
ssl.RAND_add = fail
runpy.run_path(${JSON.stringify(shim)}, run_name="__main__")
`);
  const handler = join(folder, 'never.py');
  await writeFile(handler, 'print("ran")\ndef handler(e, c):\n    return 1\n');
  const env = { PATH: process.env['PATH'] ?? '' };
  const { words, reply, stdout } = await drive({ argv: ['python3', '-I', broken], env, handler, event: {} });
  assert.equal(words, 'ready\n');
  assert.deepEqual([reply?.ok, reply?.phase, reply?.error?.message], [false, 'renew', 'no entropy']);
  assert.doesNotMatch(stdout, /ran/);
});
