/**
 * The warm runtimes in real clones. Goal: a handler runs with what its template has warmed and still finds nothing
 * random that another clone has had; however it ends, the reply or the status says how. Method: one template per
 * language, one clone per case, several for uniqueness.
 */
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import type { CodeEntry } from '../../src/bridge/session.ts';
import type { Template } from '../../src/clone/template.ts';
import { file, run as runIn } from './guest.ts';
import type { Order, Outcome } from './guest.ts';
import { mebibyte, openRig } from './rig.ts';
import type { Rig } from './rig.ts';

const CLONES = 4;
const event = { specversion: '1.0', id: '1', source: '/test', type: 'test', data: { n: 41 } };

let rig: Rig;
const templates = new Map<string, Template>();

before(async () => {
  rig = await openRig();
  for (const image of ['node', 'python']) templates.set(image, await rig.template(image));
});

interface Reply {
  readonly ok: boolean;
  readonly value: unknown;
  readonly phase: string;
  readonly error: { readonly name: string; readonly message: string; readonly stack: string };
}

async function run(handler: string, code: string, order: Order = {}): Promise<Outcome & { readonly reply: Reply }> {
  const image = handler.endsWith('.py') ? 'python' : 'node';
  const context = { runId: 'r', deadlineMillis: Date.now() + 60_000, memoryBytes: 256 * mebibyte, image };
  const outcome = await runIn(rig, templates.get(image) ?? assert.fail(image), {
    stdin: [{ handler: `/function/${handler}` }, context, event].map((each) => JSON.stringify(each)).join('\n'),
    ...order,
    files: [file(handler, code), ...(order.files ?? [])],
  });
  return { ...outcome, reply: JSON.parse(outcome.text === '' ? 'null' : outcome.text) as Reply };
}

// ---- the call -------------------------------------------------------------------------------------------------------

const packageFiles: readonly CodeEntry[] = [
  { kind: 'folder', path: 'node_modules', mode: 0o755 },
  { kind: 'folder', path: 'node_modules/adder', mode: 0o755 },
  file('node_modules/adder/package.json', '{"name":"adder","version":"1.0.0","main":"main.js"}'),
  file('node_modules/adder/main.js', 'exports.add = (a, b) => a + b;'),
];

test('Node: async code, a package beside the handler, logs, and a result', async () => {
  const { reply, out, log, exit } = await run('h.mjs', `
    import { readFile } from 'node:fs/promises';
    import { add } from 'adder';
    export default async (event, context) => {
      console.log('one'); console.error('two');
      await new Promise((resolve) => setTimeout(resolve, 20));
      const own = (await readFile(new URL('h.mjs', import.meta.url), 'utf8')).length > 0;
      return { sum: add(event.data.n, 1), own, cwd: process.cwd(), uid: process.getuid(), image: context.image };
    };`, { files: packageFiles });
  assert.deepEqual(reply, { ok: true, value: { sum: 42, own: true, cwd: '/function', uid: 1000, image: 'node' } });
  assert.deepEqual([out, log, exit.exitCode, exit.signal], ['one\n', 'two\n', 0, 0]);
});

test('Python: a module beside the handler, logs, and a result', async () => {
  const { reply, out, log } = await run('h.py', `import adder, sys
async def handler(event, context):
    print("one")
    print("two", file=sys.stderr)
    return {"sum": adder.add(event["data"]["n"], 1), "image": context.image}
`, { files: [file('adder.py', 'def add(a, b):\n    return a + b\n')] });
  assert.deepEqual(reply, { ok: true, value: { sum: 42, image: 'python' } });
  assert.deepEqual([out, log], ['one\n', 'two\n']);
});

test('an error comes with its stack', async () => {
  const node = await run('h.mjs', "export default () => {\n  throw new TypeError('boom');\n};");
  assert.deepEqual([node.reply.phase, node.reply.error.name, node.reply.error.message], ['call', 'TypeError', 'boom']);
  assert.match(node.reply.error.stack, /^TypeError: boom\n {4}at \S+ \(file:\/\/\/function\/h\.mjs:2:9\)$/);
  const python = await run('h.py', 'def handler(event, context):\n    raise TypeError("boom")\n');
  assert.deepEqual([python.reply.phase, python.reply.error.name], ['call', 'TypeError']);
  assert.match(python.reply.error.stack, /File "\/function\/h\.py", line 2, in handler/);
});

test('an exit without a result is told with its status', async () => {
  const node = await run('h.mjs', "export default () => { console.log('bye'); process.exit(3); };");
  assert.deepEqual([node.text, node.out, node.exit.exitCode, node.exit.signal], ['', 'bye\n', 3, 0]);
  const killed = await run('h.mjs', "export default () => process.kill(process.pid, 'SIGKILL');");
  assert.deepEqual([killed.text, killed.exit.signal], ['', 9]);
  const python = await run('h.py', 'import sys\ndef handler(event, context):\n    sys.exit(4)\n');
  assert.deepEqual([python.text, python.exit.exitCode], ['', 4]);
});

test('C2: a handler that eats memory is killed, and the kill is counted', async () => {
  const limits = { memoryBytes: 128 * mebibyte };
  const eat = 'export default () => { const all = []; for (;;) all.push(Buffer.alloc(2 ** 20, 1)); };';
  const node = await run('h.mjs', eat, { limits });
  assert.deepEqual([node.text, node.exit.oomKills > 0], ['', true]);
  const feast = 'def handler(e, c):\n    return [bytearray(b"x" * 2 ** 20) for _ in range(500)]\n';
  const python = await run('h.py', feast, { limits });
  assert.deepEqual([python.text, python.exit.oomKills > 0], ['', true]);
});

test('a result does not wait for what the handler leaves running', async () => {
  const { reply, timings } = await run('h.mjs', `import { spawn } from 'node:child_process';
    export default () => {
      spawn('/usr/bin/sleep', ['100'], { stdio: 'inherit', detached: true });
      setInterval(() => {}, 1000);
      return 1;
    };`);
  assert.equal(reply.value, 1);
  assert.ok(timings.exitMillis < 20_000);
});

test('all of a long log comes before the end', async () => {
  for (const end of ['return 1', 'process.exit(0)', "throw new Error('x')"]) {
    const code = `export default () => { console.log('x'.repeat(400_000) + 'end'); ${end}; };`;
    const { out, stdout } = await run('h.mjs', code);
    assert.deepEqual([out.length, out.slice(-4), stdout.truncated], [400_004, 'end\n', false], end);
  }
  const { out } = await run('h.py', 'def handler(event, context):\n    print("x" * 400_000 + "end")\n');
  assert.deepEqual([out.length, out.slice(-4)], [400_004, 'end\n']);
});

test('a result of several megabytes arrives whole', async () => {
  const { reply } = await run('h.mjs', "export default () => 'ü'.repeat(2_000_000);");
  assert.equal(reply.value, 'ü'.repeat(2_000_000));
});

test('an executable can run in an image whose runtime is warm', async () => {
  const { text, exit } = await runIn(rig, templates.get('node') ?? assert.fail(), {
    argv: ['/usr/bin/node', '-e', 'process.stdin.pipe(process.stdout); process.exitCode = 5;'],
    stdin: 'event',
  });
  assert.deepEqual([text, exit.exitCode, exit.oomKills], ['event', 5, 0]);
});

// ---- H1: uniqueness -------------------------------------------------------------------------------------------------

/** The value of every name must differ between all clones. */
function assertDistinct(replies: readonly Reply[]): void {
  const values = replies.map(({ value }) => value as Readonly<Record<string, unknown>>);
  for (const name of Object.keys(values[0] ?? {})) {
    const seen = values.map((value) => JSON.stringify(value[name]));
    assert.equal(new Set(seen).size, CLONES, `${name}: ${seen.join(' ')}`);
  }
}

test('H1: no two Node clones share a random value, from the first line of the customer on', async () => {
  const replies: Reply[] = [];
  for (let i = 0; i < CLONES; i++) {
    const { reply } = await run('h.mjs', `
      const early = Math.random();
      import { createRequire } from 'node:module';
      import crypto, { generateKeyPairSync } from 'node:crypto';
      import fs from 'node:fs';
      import os from 'node:os';
      import vm from 'node:vm';
      import { Worker } from 'node:worker_threads';
      const inWorker = (code) => new Promise((resolve, reject) => {
        const post = 'require("node:worker_threads").parentPort.postMessage';
        const worker = new Worker(post + '(' + code + ')', { eval: true });
        worker.once('message', resolve); worker.once('error', reject);
      });
      const kernelBytes = () => {
        const bytes = Buffer.alloc(8);
        fs.readSync(fs.openSync('/dev/urandom'), bytes);
        return bytes.toString('hex');
      };
      const read = (path) => fs.readFileSync(path, 'latin1').trim();
      export default async () => ({
        early, random: Math.random(), bytes: crypto.randomBytes(8).toString('hex'), uuid: crypto.randomUUID(),
        int: crypto.randomInt(2 ** 40), web: Array.from(globalThis.crypto.getRandomValues(new Uint32Array(2))),
        async: await new Promise((resolve) => crypto.randomBytes(8, (_, bytes) => resolve(bytes.toString('hex')))),
        key: generateKeyPairSync('ed25519').publicKey.export({ format: 'jwk' }).x,
        context: vm.runInNewContext('Math.random()'), worker: await inWorker('Math.random()'),
        workerBytes: await inWorker('require("node:crypto").randomBytes(8).toString("hex")'),
        urandom: kernelBytes(),
        machineId: read('/etc/machine-id'), bootId: read('/proc/sys/kernel/random/boot_id'), hostname: os.hostname(),
        temporary: fs.mkdtempSync('/tmp/x'),
      });`);
    assert.equal(reply.ok, true, JSON.stringify(reply.error));
    replies.push(reply);
  }
  assertDistinct(replies);
});

test('H1: no two Python clones share a random value', async () => {
  const replies: Reply[] = [];
  for (let i = 0; i < CLONES; i++) {
    const { reply } = await run('h.py', `import random
early = random.random()
import multiprocessing, os, secrets, ssl, tempfile, uuid
def handler(event, context):
    return {
        "early": early, "random": random.random(), "instance": random.Random().random(),
        "secrets": secrets.token_hex(8),
        "uuid4": str(uuid.uuid4()), "node": uuid.getnode(), "uuid1": str(uuid.uuid1()), "ssl": ssl.RAND_bytes(8).hex(),
        "temporary": tempfile.mkdtemp(), "urandom": os.urandom(8).hex(), "sample": random.sample(range(10 ** 9), 2),
        "authkey": multiprocessing.current_process().authkey.hex(), "hostname": os.uname().nodename,
    }
`);
    assert.equal(reply.ok, true, JSON.stringify(reply.error));
    replies.push(reply);
  }
  assertDistinct(replies);
});
