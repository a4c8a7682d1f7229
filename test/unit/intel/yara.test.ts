/**
 * Goal: YARA rules count where they can be applied, and where not that is said, with a code. Method: the real program.
 */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { test } from 'node:test';
import { createDisk } from '../../../src/core/disk.ts';
import type { Clock } from '../../../src/core/time.ts';
import { Intel } from '../../../src/intel/intel.ts';
import { scanWithYara } from '../../../src/intel/yara.ts';
import { NOW } from './rig.ts';

const clock: Clock = {
  now: () => performance.now(),
  wallNanos: () => BigInt(NOW) * 1_000_000_000n,
  after(millis, fire) {
    const timer = setTimeout(fire, millis);
    return () => clearTimeout(timer);
  },
};

test('YARA: rules match attachments; broken rules and no program are notes with a code', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'mayfly-yara-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const random = { bytes: (size: number) => Buffer.alloc(size) };
  const intel = new Intel({ folder, disk: createDisk(), clock, random, environment: () => undefined });
  mkdirSync(join(folder, 'yara'));
  const event = { value: { content: Buffer.from(`MARKER ${'x'.repeat(80)} Z`).toString('base64') }, bytes: 200 };
  writeFileSync(join(folder, 'yara/a.yar'), 'rule marker { strings: $a = "MARKER" condition: $a }\n');
  const { notes } = await intel.assess(event);
  if (notes.some((note) => note.includes('not installed'))) return t.skip('the program yara is not installed here');
  const { assessment } = await intel.assess(event);
  assert.deepEqual([notes, assessment.score], [[], 70]);
  assert.match(assessment.reasons[0]?.text ?? '', /YARA rule marker at content/);
  writeFileSync(join(folder, 'yara/b.yar'), 'rule {');
  const broken = await intel.assess(event);
  assert.match(broken.notes[0] ?? '', /^E_INTEL_YARA: yara ended with/);
  assert.equal(broken.assessment.score, 0);
  const { attachments } = broken.observed;
  const missing = {
    program: 'yara-that-is-not-there',
    rulesFolder: join(folder, 'yara'),
    scratch: join(folder, 'scan-x'),
  };
  const scan = await scanWithYara({ ...missing, attachments, disk: createDisk(), clock });
  assert.deepEqual(scan, { hits: [], notes: ['E_INTEL_YARA: the program yara-that-is-not-there is not installed'] });
  assert.deepEqual(
    readdirSync(folder).filter((name) => name.startsWith('scan-')),
    [],
  );
});
