/**
 * H4: what one run had in memory and on its disk must not be found by the next. Expected: a canary of the first run is
 * nowhere in the second clone's process, in the template or in a file of MAYFLY_HOME. Method: the whole memory of the
 * VMMs is searched from outside, after the search has found the canary where it must be: in the first one.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { open, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { Session } from '../../src/bridge/session.ts';
import type { Template } from '../../src/clone/template.ts';
import type { Machine } from '../../src/clone/vmm/contract.ts';
import { granted, kernelPolicy, newIdentity, script } from '../vm/guest.ts';
import { clock, home, openRig, workloadId } from '../vm/rig.ts';
import type { Rig } from '../vm/rig.ts';

const CHUNK = 8 * 1024 * 1024;
/** In halves, so that the whole is nowhere in this process as text; the guest puts it together. */
const halves = [randomBytes(12).toString('hex'), randomBytes(12).toString('hex')] as const;
const canary = Buffer.from(halves.join('-'));

let rig: Rig;
let template: Template;
before(async () => {
  rig = await openRig();
  template = await rig.template('shell');
});

test('a canary of one run is in its own clone, and not in the next one, its template or the home', async () => {
  const commands = [
    'c="$1-$2"', 'i=0; while [ $i -lt 2000 ]; do echo $c; i=$((i+1)); done > /tmp/canary',
    'cp /tmp/canary /dev/shm/canary', 'echo full >&2', 'sleep 60',
  ];
  assert.ok((await held(commands, halves, occurrences)) > 3000, 'the search finds it where it must be');
  assert.equal(await held(['echo full >&2', 'sleep 60'], [], occurrences), 0, 'the next clone');
  const kept = await Promise.all(['run', 'evidence'].map((name) => regularFiles(join(home, name))));
  for (const path of [template.state.ram, ...kept.flat()]) assert.equal(await inFile(path), 0, path);
  assert.equal(template.state.state.includes(canary), false, 'the saved device state');
});

/** Runs lines in a fresh clone and calls `look` when they have said `full`. */
async function held<T>(
  lines: readonly string[],
  args: readonly string[],
  look: (machine: Machine) => Promise<T>,
): Promise<T> {
  const machine = await rig.vmm.spawn(template.state);
  try {
    await machine.resume();
    const session = new Session({ transport: machine.bridge, clock });
    await session.adopt(newIdentity());
    const { files = [] } = script(...lines);
    const program = { argv: ['/function/f.sh', ...args], env: ['PATH=/usr/bin:/bin'] };
    const kernel = { uid: workloadId, gid: workloadId, ...(await kernelPolicy(template)) };
    await session.configure({ limits: granted, ...kernel, ...program }, files);
    await new Promise<void>((full, failed) => {
      const onStderr = (): void => full();
      session.execute({ stdin: Buffer.alloc(0), wallMillis: 120_000, onStderr }).catch(failed);
    });
    return await look(machine);
  } finally {
    await machine.kill();
  }
}

/** Everything that the process has mapped and that can be read. */
async function occurrences({ identity }: Machine): Promise<number> {
  const memory = await open(`/proc/${identity.pid}/mem`, 'r');
  let found = 0;
  try {
    for (const line of (await readFile(`/proc/${identity.pid}/maps`, 'utf8')).split('\n')) {
      const [, from, to] = /^([0-9a-f]+)-([0-9a-f]+) r/.exec(line) ?? [];
      if (from === undefined || to === undefined || /\[v(syscall|var|dso)/.test(line)) continue;
      found += await scan(Number(`0x${from}`), Number(`0x${to}`), async (buffer, at) => {
        return (await memory.read(buffer, 0, buffer.length, at).catch(() => ({ bytesRead: 0 }))).bytesRead;
      });
    }
  } finally {
    await memory.close();
  }
  return found;
}

async function inFile(path: string): Promise<number> {
  const file = await open(path, 'r');
  try {
    const { size } = await file.stat();
    return await scan(0, size, async (buffer, at) => (await file.read(buffer, 0, buffer.length, at)).bytesRead);
  } finally {
    await file.close();
  }
}

/** Counts the canary between two positions; chunks overlap by its length. */
async function scan(from: number, to: number, read: (buffer: Buffer, at: number) => Promise<number>): Promise<number> {
  let found = 0;
  for (let at = from; at < to; at += CHUNK - canary.length) {
    const buffer = Buffer.allocUnsafe(Math.min(CHUNK, to - at));
    const bytes = await read(buffer, at);
    const chunk = buffer.subarray(0, bytes);
    for (let where = chunk.indexOf(canary); where !== -1; where = chunk.indexOf(canary, where + 1)) found += 1;
    if (at + CHUNK >= to) break;
  }
  return found;
}

async function regularFiles(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => []);
  return entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
}
