/**
 * Goal: what the README promises a newcomer is so, word for word; and a service with real machines that is killed
 * leaves nothing and loses nothing. Method: the README's own commands in a shell; then the real program, killed while
 * it runs.
 */
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { MayflyClient } from '../../src/client/client.ts';
import { home, inFolder } from './rig.ts';

const root = join(import.meta.dirname, '../..');
const mayfly = join(root, 'bin/mayfly');
const env = { ...process.env, MAYFLY_HOME: home };
const run = promisify(execFile);

async function serve(): Promise<{ readonly child: ChildProcess; readonly url: string }> {
  const child = spawn(mayfly, ['serve', '--listen', '127.0.0.1:0', '--concurrency', '2'], {
    env, stdio: ['ignore', 'pipe', 'ignore'],
  });
  for await (const line of createInterface({ input: child.stdout })) {
    const url = /^listening on (http:\S+)$/.exec(line)?.[1];
    if (url !== undefined) return { child, url };
  }
  throw new Error('the service did not start');
}

async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<number | null> {
  const gone = new Promise<number | null>((resolve) => child.once('exit', resolve));
  child.kill(signal);
  return await gone;
}

/** Machines of this home, by their command lines; shares no code with the product. */
function machines(): string[] {
  return readdirSync('/proc').filter((pid) => {
    if (!/^\d+$/.test(pid)) return false;
    try {
      const line = readFileSync(`/proc/${pid}/cmdline`, 'latin1');
      return line.includes('qemu-system') && readFileSync(`/proc/${pid}/environ`, 'latin1') !== undefined
        && line.includes('fd=3') && readFileSync(`/proc/${pid}/stat`, 'latin1').includes(') ') && line.includes(home);
    } catch {
      return false;
    }
  });
}

test('README: a newcomer deploys a function and gets an answer with curl', async () => {
  const readme = readFileSync(join(root, 'README.md'), 'utf8');
  const block = /## Serve in five minutes[\s\S]*?```sh\n([\s\S]*?)```/.exec(readme)?.[1];
  assert.ok(block);
  await inFolder(async (folder) => {
    mkdirSync(join(folder, 'bin'));
    symlinkSync(mayfly, join(folder, 'bin/mayfly'));
    // Another port than the documented one: whoever runs the tests may run a service.
    const script = `set -eu\n${block.replaceAll('8420', '18420')}`;
    writeFileSync(join(folder, 'script'), script);
    const { stdout } = await run('sh', ['script'], { cwd: folder, env, timeout: 120_000 });
    assert.match(stdout, /\{"hello":"you","run":"[0-9A-Z]{26}"\}/);
  });
});

test('G1: a service with real machines that is killed: nothing is left, every event has its result', async () => {
  await inFolder(async (folder) => {
    const source = join(folder, 'killed');
    await run(mayfly, ['init', source], { env });
    await run(mayfly, ['deploy', source], { env });
    const { stdout: key } = await run(mayfly, ['key', 'create', '--role', 'invoke', '--role', 'admin'], { env });
    const ids: string[] = [];
    for (let round = 0; round < 2; round++) {
      const { child, url } = await serve();
      const client = new MayflyClient({ url, key: key.trim() });
      for (let i = 0; i < 3; i++) ids.push(await client.send('killed', { name: `${round}-${i}` }));
      // In the middle of the first runs.
      await new Promise((resolve) => setTimeout(resolve, 700 + round * 600));
      await end(child, 'SIGKILL');
    }
    const { child, url } = await serve();
    const client = new MayflyClient({ url, key: key.trim() });
    for (const [index, id] of ids.entries()) {
      const { state, output, failure } = await client.settled(id);
      assert.equal(state, 'succeeded', JSON.stringify(failure));
      assert.equal((output as { hello: string }).hello, `${Math.floor(index / 3)}-${index % 3}`);
    }
    assert.equal(await end(child, 'SIGTERM'), 0, 'a drain is a clean end');
    const left = readdirSync(join(home, 'run')).filter((name) => {
      return readFileSync(join(home, 'run', name, 'journal'), 'utf8').includes(`"pid":${child.pid},`);
    });
    assert.deepEqual([left, machines()], [[], []]);
  });
});
