/**
 * Goal: a template is built once for everybody, is whole or absent, and makes no clone once its files are not those
 * that were sealed. Method: the fake VMM, whose builds are counted and leave a small RAM file; a real file system and
 * real locks, also one that another process holds.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, utimesSync, writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { afterEach, beforeEach, test } from 'node:test';
import { openTemplates } from '../../../src/clone/template.ts';
import type { Template, TemplateImage, TemplateOptions, Templates } from '../../../src/clone/template.ts';
import type { Vmm } from '../../../src/clone/vmm/contract.ts';
import { createFake } from '../../../src/clone/vmm/fake.ts';
import { MayflyError } from '../../../src/core/errors.ts';
import type { ErrorCode } from '../../../src/core/errors.ts';
import type { Clock } from '../../../src/core/time.ts';

const RAM = 1024 * 1024;
const clock: Clock = {
  now: () => performance.now(),
  wallNanos: () => 1_732_446_000_000_000_000n,
  after(millis, fire) {
    const timer = setTimeout(fire, millis);
    return () => clearTimeout(timer);
  },
};
const image: TemplateImage = {
  name: 'node', path: '/images/node', digest: 'sha256:node', layers: [], runtime: { argv: ['n'], env: [] },
};

let home = '';
let root = '';
let builds = 0;
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), 'mayfly-template-'));
  root = join(home, 'templates');
  builds = 0;
});
afterEach(() => rmSync(home, { recursive: true }));

interface Setting extends Partial<TemplateOptions> {
  /** Called when a machine has booted and before it is saved. */
  readonly during?: () => Promise<void>;
}

/** As another process would open them: nothing is shared but the disk. */
function open({ during = async () => {}, ...changes }: Setting = {}): Templates {
  const fake = createFake({ clock, delay: () => 0 });
  const vmm: Vmm = {
    ...fake,
    async buildTemplate(spec, prepare) {
      builds += 1;
      const state = await fake.buildTemplate(spec, prepare);
      writeFileSync(state.ram, Buffer.alloc(4096, builds), { flag: 'wx' });
      await during();
      return state;
    },
  };
  return openTemplates({
    home, vmm, clock, workloadId: 1000, compile: async (text, features) => Buffer.from(text + features),
    builder: '1-1', alive: async () => true,
    kernel: { path: '/kernel', digest: 'sha256:kernel' }, initramfs: { path: '/initramfs', digest: 'sha256:initramfs' },
    ...changes,
  });
}

function hasCode(code: ErrorCode, message = /./): (thrown: unknown) => boolean {
  return (thrown) => thrown instanceof MayflyError && thrown.code === code && message.test(thrown.message);
}

function folders(): string[] {
  return readdirSync(root).filter((name) => !name.endsWith('.lock'));
}

// ---- built once, found by key ---------------------------------------------------------------------------------------

test('it is built when first asked for, and found from then on, also by another process', async () => {
  const steps: string[] = [];
  const templates = open();
  const onBuild = (step: string): void => void steps.push(step);
  const get = (): Promise<Template> => templates.get(image, RAM, { onBuild });
  const [one, two] = await Promise.all([get(), get()]);
  assert.equal(one, two);
  const found = await open({ builder: '2-2' }).get(image, RAM, { onBuild });
  assert.equal(builds, 1);
  assert.deepEqual(steps, ['booting a node template (once; seconds)', 'sealing the node template']);
  assert.deepEqual(found.state, one.state);
  assert.deepEqual([found.warm, found.key, found.state.ram], [true, one.key, join(root, one.key, 'ram')]);
  assert.deepEqual(folders(), [one.key]);
  await found.check();
});

interface Change {
  readonly options?: Setting;
  readonly image?: TemplateImage;
  readonly ram?: number;
}

const other: Readonly<Record<string, Change>> = {
  kernel: { options: { kernel: { path: '/kernel', digest: 'sha256:other' } } },
  initramfs: { options: { initramfs: { path: '/initramfs', digest: 'sha256:other' } } },
  image: { image: { ...image, digest: 'sha256:other' } },
  runtime: { image: { ...image, runtime: { argv: ['n'], env: ['A=1'] } } },
  'size of RAM': { ram: 2 * RAM },
  'id of the workload': { options: { workloadId: 2000 } },
};
test('whatever a saved state depends on makes another template; where its files are does not', async () => {
  const keys = new Set([(await open().get(image, RAM)).key]);
  for (const change of Object.values(other)) {
    keys.add((await open(change.options).get(change.image ?? image, change.ram ?? RAM)).key);
  }
  assert.equal(keys.size, 1 + Object.keys(other).length);
  assert.equal(builds, keys.size);
  const moved = await open({ kernel: { path: '/elsewhere', digest: 'sha256:kernel' } }).get(image, RAM);
  assert.deepEqual([keys.has(moved.key), moved.state.kernel, builds], [true, '/elsewhere', keys.size]);
});

// ---- a budget -------------------------------------------------------------------------------------------------------

const named = (name: string): TemplateImage => ({ ...image, name, digest: `sha256:${name}` });

/** As if it had been asked for so long ago. */
function age(key: string, millis: number): void {
  const then = (Number(clock.wallNanos() / 1_000_000n) - millis) / 1000;
  utimesSync(join(root, key, 'used'), then, then);
}

test('over the budget, what was used longest ago goes, never the new one, nor what is in use', async () => {
  const templates = open({ bytesMax: 2 * 8192 });
  const keys: string[] = [];
  for (const [index, name] of ['a', 'b', 'c'].entries()) {
    const { key } = await templates.get(named(name), RAM);
    age(key, 3_600_000 - index * 60_000);
    keys.push(key);
  }
  assert.deepEqual(folders(), keys.slice(1), 'the first one went for the third');
  // Asked for again, in memory and on disk: it is in use, and the other one goes.
  await templates.get(named('b'), RAM);
  const steps: string[] = [];
  const another = open({ bytesMax: 2 * 8192 });
  const { key: newest } = await another.get(named('d'), RAM, { onBuild: (step) => steps.push(step) });
  assert.deepEqual(folders(), [keys[1], newest].toSorted());
  assert.match(steps.join(), /removed the c template that was used longest ago/);
  await open({ bytesMax: 1 }).get(named('e'), RAM);
  assert.equal(folders().length, 3, 'all of them were used within the last minute');
});

test('a template that another process took away is built again, not called tampered with', async () => {
  const templates = open();
  const { key } = await templates.get(image, RAM);
  rmSync(join(root, key), { recursive: true });
  await (await templates.get(image, RAM)).check();
  assert.equal(builds, 2);
});

// ---- files that are not those that were sealed ----------------------------------------------------------------------

test('F1: RAM that was written to is refused, and its template discarded', async () => {
  const victim = await open().get(image, RAM);
  writeFileSync(victim.state.ram, 'x', { flag: 'r+' });
  await assert.rejects(victim.check(), hasCode('E_TEMPLATE_TAMPERED', /RAM image of template node was changed at 2/));
  await assert.rejects(victim.check(), hasCode('E_TEMPLATE_TAMPERED', /is gone/));
  assert.deepEqual(folders(), []);
});

const damages: Readonly<Record<string, (folder: string) => void>> = {
  'RAM written to': (folder) => writeFileSync(join(folder, 'ram'), 'x', { flag: 'r+' }),
  'RAM cut off': (folder) => truncateSync(join(folder, 'ram'), 10),
  'RAM replaced by a copy': (folder) => {
    const content = readFileSync(join(folder, 'ram'));
    rmSync(join(folder, 'ram'));
    writeFileSync(join(folder, 'ram'), content);
  },
  'RAM gone': (folder) => rmSync(join(folder, 'ram')),
  'state changed': (folder) => replace(join(folder, 'state'), 'FAKE'),
  'state cut off': (folder) => replace(join(folder, 'state'), ''),
  'state gone': (folder) => rmSync(join(folder, 'state')),
  'features changed': (folder) => replace(join(folder, 'features'), 'weaker'),
  'features gone': (folder) => rmSync(join(folder, 'features')),
  'seal cut off': (folder) => replace(join(folder, 'template.json'), '{"templateVersion":1'),
  'seal of another version': (folder) => {
    const path = join(folder, 'template.json');
    replace(path, readFileSync(path, 'utf8').replace('"templateVersion": 2', '"templateVersion": 1'));
  },
  'seal gone, as when a removal was interrupted': (folder) => rmSync(join(folder, 'template.json')),
};

function replace(path: string, content: string): void {
  rmSync(path);
  writeFileSync(path, content);
}

for (const [damage, inflict] of Object.entries(damages)) {
  test(`at rest: ${damage}: it is built again`, async () => {
    const { key } = await open().get(image, RAM);
    inflict(join(root, key));
    const again = await open().get(image, RAM);
    assert.deepEqual([again.key, builds], [key, 2]);
    await again.check();
    await (await open().get(image, RAM)).check();
    assert.equal(builds, 2);
  });
}

// ---- builds that do not end well ------------------------------------------------------------------------------------

test('a build that fails leaves nothing, and the next one succeeds', async () => {
  const during = async (): Promise<void> => Promise.reject(new MayflyError('E_TEMPLATE_BUILD', 'on purpose'));
  const templates = open({ during: async () => (builds === 1 ? await during() : undefined) });
  await assert.rejects(templates.get(image, RAM), hasCode('E_TEMPLATE_BUILD', /on purpose/));
  assert.deepEqual(folders(), []);
  await (await templates.get(image, RAM)).check();
});

test('a signal ends a build before it begins and while it is under way', async () => {
  const abort = new AbortController();
  const watch = { signal: abort.signal, onBuild: () => abort.abort() };
  await assert.rejects(open().get(image, RAM, watch), hasCode('E_TEMPLATE_BUILD'));
  await assert.rejects(open().get(image, RAM, watch), hasCode('E_INTERRUPTED'));
  assert.deepEqual([builds, folders()], [1, []]);
});

test('what a dead builder left is removed, what a living one makes is not', async () => {
  for (const name of ['building-7-7-node-x', 'building-8-8-node-x', 'building-7-7-trial', 'building-odd']) {
    mkdirSync(join(root, name), { recursive: true });
    writeFileSync(join(root, name, 'ram'), '');
  }
  const { key } = await open({ alive: async (builder) => builder === '8-8' }).get(image, RAM);
  assert.deepEqual(folders().sort(), ['building-8-8-node-x', 'building-odd', key].sort());
});

test('too little space is said before anything boots', async () => {
  const [petabyte, mebibytes] = [1024 ** 5, 1024 ** 3];
  const said = new RegExp(`needs ${mebibytes + 512} MiB free in`);
  await assert.rejects(open().get(image, petabyte), hasCode('E_DISK_SPACE', said));
  assert.deepEqual([builds, folders()], [0, []]);
});

// ---- two at once ----------------------------------------------------------------------------------------------------

/** Another process that has the lock until it is killed. */
async function hold(lock: string): Promise<ChildProcess> {
  const command = ['--no-fork', '-x', lock, 'sh', '-c', 'echo held; exec sleep 60'];
  const holder = spawn('flock', command, { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(holder.stdout, 'data');
  return holder;
}

test('two processes at once: one builds, the other one says that it waits and gets the same template', async () => {
  const release = Promise.withResolvers<void>();
  const begun = Promise.withResolvers<void>();
  const first = open({
    during: async () => {
      begun.resolve();
      await release.promise;
    },
  }).get(image, RAM);
  await begun.promise;
  const steps: string[] = [];
  const second = open({ builder: '2-2' }).get(image, RAM, {
    onBuild: (step) => {
      steps.push(step);
      release.resolve();
    },
  });
  const [one, two] = await Promise.all([first, second]);
  assert.deepEqual(steps, ['waiting for another process that builds the node template']);
  assert.deepEqual([one.key, builds], [two.key, 1]);
  await two.check();
});

test('templates of other keys do not wait for each other', async () => {
  const meet = Promise.withResolvers<void>();
  let inside = 0;
  const during = async (): Promise<void> => {
    inside += 1;
    if (inside === 2) meet.resolve();
    await meet.promise;
  };
  await Promise.all([open({ during }).get(image, RAM), open({ during, builder: '2-2' }).get(image, 2 * RAM)]);
  assert.equal(builds, 2);
});

test('the wait ends by a signal, and when the builder is killed', async () => {
  const { key } = await open().get(image, RAM);
  rmSync(join(root, key), { recursive: true });
  const holder = await hold(join(root, `${key}.lock`));
  try {
    const abort = new AbortController();
    const watch = { signal: abort.signal, onBuild: () => abort.abort() };
    await assert.rejects(open({ builder: '2-2' }).get(image, RAM, watch), hasCode('E_INTERRUPTED'));
    const steps: string[] = [];
    const onBuild = (step: string): void => {
      steps.push(step);
      holder.kill('SIGKILL');
    };
    await (await open({ builder: '3-3' }).get(image, RAM, { onBuild })).check();
    assert.match(steps[0] ?? '', /^waiting for another process/);
    assert.equal(builds, 2);
  } finally {
    holder.kill('SIGKILL');
  }
});

test('the wait is bounded', async () => {
  const { key } = await open().get(image, RAM);
  rmSync(join(root, key), { recursive: true });
  const lock = join(root, `${key}.lock`);
  const holder = await hold(lock);
  try {
    let looks = 0;
    const late = { ...clock, now: () => 100_000 * looks++ };
    const failure = hasCode('E_TEMPLATE_BUILD', /building the node template/);
    await assert.rejects(open({ clock: late }).get(image, RAM), failure);
    assert.ok(existsSync(lock));
  } finally {
    holder.kill('SIGKILL');
  }
});
