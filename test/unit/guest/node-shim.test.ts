/**
 * The Node runtime outside of a VM. Goal: whatever a handler is or does becomes exactly one reply that says what
 * happened, and nothing random survives the template. Method: the shim as a process, its channel in our hands.
 */
import assert from 'node:assert/strict';
import { cp, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { attempt } from '../../../scripts/setup/command.ts';
import { context, drive } from './channel.ts';
import type { Channel } from './channel.ts';

const runtime = join(import.meta.dirname, '../../../guest/runtime/node');
const skip = (await attempt(['gcc', '--version'])).status === 0 ? false : 'gcc is not installed';
let folder = '';
let shim = '';

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mayfly-node-shim-'));
  shim = join(folder, 'runtime');
  await cp(runtime, shim, { recursive: true });
  const [addon, source] = [join(shim, 'renew.node'), join(shim, 'renew.c')];
  const compile = ['gcc', '-shared', '-fPIC', '-Wall', '-Wextra', '-Werror', '-o', addon, source];
  if (skip === false) assert.equal((await attempt(compile)).status, 0);
});

after(async () => {
  await rm(folder, { recursive: true, force: true });
});

interface RunOptions {
  readonly event?: unknown;
  readonly restMillis?: number;
  readonly variables?: Readonly<Record<string, string>>;
}

async function run(name: string, code: string, options: RunOptions = {}): Promise<Channel> {
  const handler = join(folder, name);
  await writeFile(handler, code);
  const argv = [process.execPath, '--no-warnings', join(shim, 'shim.mjs')];
  return await drive({ argv, env: { PATH: '/usr/bin:/bin' }, handler, event: { id: '1' }, ...options });
}

test('event and context go in, the awaited result and the logs come out', { skip }, async () => {
  const ended = await run('h.mjs', `
    console.log('out');
    export default async (event, context) => {
      console.error('err');
      await new Promise((resolve) => setTimeout(resolve, 5));
      const { getRemainingTimeMillis, ...rest } = context;
      const left = getRemainingTimeMillis();
      return { event, rest, left: left > 0 && left <= 60_000 };
    };`, { event: { data: ['ü', null, 1e300] } });
  assert.equal(ended.words, 'ready\nrenewed\n');
  const value = { event: { data: ['ü', null, 1e300] }, rest: context, left: true };
  assert.deepEqual(ended.reply, { ok: true, value });
  // The first line is the warm-up's: the agent drops it.
  assert.deepEqual([ended.stdout, ended.stderr, ended.status], ['\nout\n', '\nerr\n', 0]);
});

const forms: readonly (readonly [string, string, string])[] = [
  ['default export', 'a.mjs', 'export default () => 42;'],
  ['named export', 'b.mjs', 'export const handler = () => 42;'],
  ['module.exports', 'c.cjs', 'module.exports = () => 42;'],
  ['exports.handler', 'd.cjs', 'exports.handler = async () => 42;'],
  ['ES module without saying so', 'e.js', 'export default () => 42;'],
  ['CommonJS without saying so', 'f.js', 'module.exports = () => 42;'],
  ['top-level await', 'g.mjs', 'const x = await new Promise((r) => setTimeout(r, 5, 42)); export default () => x;'],
  ['TypeScript', 'i.ts', 'export default (): number => 42;'],
];
for (const [form, name, code] of forms) {
  test(`a handler can be: ${form}`, { skip }, async () => {
    assert.deepEqual((await run(name, code)).reply, { ok: true, value: 42 });
  });
}

test('variables that the caller sets are there when the handler is loaded', { skip }, async () => {
  const code = `const early = process.env.GREETING;
    export default () => [early, process.env.TZ, new Date(0).getHours()];`;
  const ended = await run('env.mjs', code, { variables: { GREETING: 'hä=\n', TZ: 'Etc/GMT-5' } });
  assert.deepEqual(ended.reply, { ok: true, value: ['hä=\n', 'Etc/GMT-5', 5] });
});

test('null is a result, also inside', { skip }, async () => {
  assert.deepEqual((await run('null.mjs', 'export default () => [null, "null"];')).reply?.value, [null, 'null']);
});

test('undefined is null', { skip }, async () => {
  assert.deepEqual((await run('undefined.mjs', 'export default () => {};')).reply, { ok: true, value: null });
});

const failures: readonly (readonly [what: string, code: string, phase: string, message: RegExp, stack: RegExp])[] = [
  ['syntax error', 'export default () => {\n  const = 5;\n};',
    'load', /Unexpected token/, /bad\.mjs:2\n {2}const = 5;\n {8}\^/],
  ['throws while loading', "throw new TypeError('early');", 'load', /^early$/, /bad\.mjs:1:7/],
  ['no function', 'export const x = 1;', 'load', /exports no function \(it exports x\)/, /./],
  ['missing package', "import 'no-such-package';", 'load', /Cannot find package 'no-such-package'/, /./],
  ['throws', "function deep() { throw new RangeError('boom'); }\nexport default () => deep();",
    'call', /^boom$/, /at deep \(/],
  ['rejects', "export default async () => { await null; throw new Error('late'); };", 'call', /^late$/, /bad\.mjs:1/],
  ['cause', "export default () => { throw new Error('a', { cause: new Error('b') }); };",
    'call', /^a$/, /Caused by: Error: b/],
  ['not an Error', "export default () => { throw { a: 1 }; };",
    'call', /\{ a: 1 \} was thrown, which is no Error/, /^$/],
  ['stray exception', 'export default () => new Promise(() => setTimeout(() => { null.x; }));',
    'call', /reading 'x'/, /bad\.mjs:1/],
  ['stray rejection', "export default () => new Promise(() => Promise.reject(new Error('lost')));",
    'call', /^lost$/, /bad\.mjs:1/],
  ['never settles', 'export default () => new Promise(() => {});', 'call', /nothing is left to settle/, /^$/],
  ['NaN', 'export default () => ({ a: [null, 0 / 0] });', 'result', /^NaN \(at "1"\) cannot be a result/, /./],
  ['Infinity', 'export default () => -1 / 0;', 'result',
    /^-Infinity cannot be a result: JSON has no such number$/, /./],
  ['BigInt', 'export default () => ({ n: 1n });', 'result', /BigInt/, /./],
  ['cycle', 'export default () => { const a = {}; a.b = a; return a; };',
    'result', /property 'b' closes the circle/, /./],
  ['function', 'export default () => () => 1;', 'result', /a function cannot be a result/, /./],
  ['symbol', "export default () => Symbol('x');", 'result', /a symbol cannot be a result/, /./],
  ['throwing toJSON', "export default () => ({ toJSON() { throw new Error('no'); } });", 'result', /^no$/, /./],
  ['throwing getters',
    'class E extends Error { get message() { throw 1; } get stack() { throw 2; } }\n' +
    'export default () => { throw new E(); };',
    'call', /^$/, /^/],
];
for (const [what, code, phase, message, stack] of failures) {
  test(`failure: ${what}`, { skip }, async () => {
    const { reply, status } = await run('bad.mjs', code);
    assert.equal(reply?.ok, false);
    assert.equal(reply.phase, phase);
    assert.match(reply.error?.message ?? '', message);
    assert.match(reply.error?.stack ?? '', stack);
    assert.doesNotMatch(reply.error?.stack ?? '', /shim\.mjs|node:internal/);
    assert.equal(status, 0);
  });
}

test('a missing handler is said so without naming the shim', { skip }, async () => {
  const argv = [process.execPath, '--no-warnings', join(shim, 'shim.mjs')];
  const { reply } = await drive({ argv, env: {}, handler: join(folder, 'none.mjs'), event: {} });
  assert.equal(reply?.phase, 'load');
  assert.equal(reply?.error?.code, 'MODULE_NOT_FOUND');
  assert.equal(reply?.error?.message, `Cannot find module '${join(folder, 'none.mjs')}'`);
  const { reply: inner } = await run('inner.cjs', "require('./absent.js');");
  const requiredBy = `Require stack:\n- ${join(folder, 'inner.cjs')}`;
  assert.equal(inner?.error?.message, `Cannot find module './absent.js'\n${requiredBy}`);
});

test('process.exit ends without a reply and with its status', { skip }, async () => {
  const { reply, status } = await run('exit.mjs', 'export default () => process.exit(3);');
  assert.deepEqual([reply, status], [undefined, 3]);
});

test('timers count from the call, however long the template rested', { skip }, async () => {
  const code = `export default async () => {
    const start = performance.now();
    await new Promise((resolve) => setTimeout(resolve, 60));
    return performance.now() - start;
  };`;
  const { reply } = await run('timer.mjs', code, { restMillis: 300 });
  assert.ok(Number(reply?.value) >= 59, `a timer of 60 ms fired after ${String(reply?.value)} ms`);
});

test('Math.random looks like itself and is a fair double in [0, 1)', { skip }, async () => {
  const { reply } = await run('random.mjs', `export default () => {
    const values = Array.from({ length: 20_000 }, () => Math.random());
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    const { value, ...flags } = Object.getOwnPropertyDescriptor(Math, 'random');
    const bits = values.reduce((or, value) => or | (value * 2 ** 53) % 2 ** 31, 0);
    return { name: value.name, length: value.length, flags, mean, distinct: new Set(values).size, bits,
      inside: values.every((each) => each >= 0 && each < 1) };
  };`);
  const { mean, ...rest } = (reply?.value ?? {}) as { mean: number };
  assert.ok(Math.abs(mean - 0.5) < 0.02, `mean ${mean}`);
  assert.deepEqual(rest, {
    name: 'random', length: 0, flags: { writable: true, enumerable: false, configurable: true }, distinct: 20_000,
    bits: 2 ** 31 - 1, inside: true,
  });
});

test('vm contexts still take their options', { skip }, async () => {
  const { reply } = await run('context.mjs', `import vm, { createContext, runInNewContext } from 'node:vm';
    export default () => [
      runInNewContext('a + 1', { a: 1 }, { contextName: 'mine', filename: 'f.js' }), vm.runInNewContext('typeof a'),
      new vm.Script('b').runInNewContext({ b: 2 }), vm.runInContext('c', createContext({ c: 3 })),
      vm.runInNewContext('Math.random()') !== vm.runInNewContext('Math.random()'),
    ];`);
  assert.deepEqual(reply?.value, [2, 'undefined', 2, 3, true]);
});

test('nothing may run when randomness cannot be renewed', { skip }, async () => {
  const broken = join(folder, 'broken');
  await cp(shim, broken, { recursive: true });
  // Works while the template warms up, fails after its rest.
  const failing = `let last = performance.now();
    module.exports = () => {
      if (performance.now() - last > 1000) throw new Error('no entropy');
      last = performance.now();
    };`;
  await rm(join(broken, 'renew.node'));
  await writeFile(join(broken, 'renew.node.js'), failing);
  const handler = join(folder, 'never.mjs');
  await writeFile(handler, "console.log('ran'); export default () => 1;");
  const argv = [process.execPath, '--no-warnings', join(broken, 'shim.mjs')];
  const { words, reply, stdout } = await drive({ argv, env: {}, handler, event: {}, restMillis: 1500 });
  assert.equal(words, 'ready\n');
  assert.deepEqual([reply?.ok, reply?.phase, reply?.error?.message], [false, 'renew', 'no entropy']);
  assert.doesNotMatch(stdout, /ran/);
});
