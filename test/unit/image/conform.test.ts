/** Goal: the judgement of a clone's report cannot be talked into a pass. Method: good reports, and what spoils them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { judgeLimits, judgeReport, judgeUniqueness, parseReport } from '../../../src/image/conform.ts';
import type { Check, ProbeReport } from '../../../src/image/conform.ts';

const NAMES = [
  'event', 'user', 'no root', 'no mount', 'no chroot', 'no device', 'no disk', 'no privileges', 'write /tmp',
  'write /dev/shm', 'no write /', 'no write /etc', 'no write /usr', 'no write /function', 'no write /dev',
  'no write /proc/sys/kernel', 'devices', 'no network',
];

const good = {
  random: 'aa', machineId: 'bb', bootId: 'cc', hostname: 'dd', clockNanos: '5',
  files: { reached: 64, error: 'no more' },
  processes: { reached: 24, error: 'no more' },
  scratch: { reached: 8_000, error: 'no more' },
  checks: NAMES.map((name) => ({ name, ok: true, detail: 'fine' })),
};
const granted = { openFiles: 64, pids: 24, scratchBytes: 9_000 };

function report(different: object = {}): ProbeReport {
  return parseReport({ ...good, ...different }) ?? assert.fail('no report');
}

const failed = (checks: readonly Check[]): string[] =>
  checks.filter(({ result }) => result === 'fail').map(({ name }) => name);

test('a good report passes, and each thing that is missing, false or said twice fails with a remedy', () => {
  assert.deepEqual(failed(judgeReport(report(), [])), []);
  for (const name of NAMES) {
    const without = good.checks.filter((check) => check.name !== name);
    const spoilt = [
      without,
      [...without, { name, ok: false, detail: 'no' }],
      [...without, { name, ok: 'true', detail: 'no' }],
      [...good.checks, { name, ok: true, detail: 'again' }],
    ];
    for (const checks of spoilt) {
      const judged = judgeReport(report({ checks }), []);
      assert.deepEqual(failed(judged), [`guest: ${name}`]);
      assert.ok(judged.every(({ result, remedy }) => (result === 'fail') === (remedy !== '')));
    }
  }
  assert.deepEqual(failed(judgeReport(report(), ['/app'])), ['guest: program /app']);
});

test('a limit that stops nothing, is passed, or was not reached is no limit', () => {
  assert.deepEqual(failed(judgeLimits(report(), granted)), []);
  for (const files of [{ reached: 64, error: '' }, { reached: 65, error: 'x' }, { reached: 3, error: 'x' }, 7]) {
    assert.deepEqual(failed(judgeLimits(report({ files }), granted)), ['limit: files']);
  }
});

test('two clones that share anything, or say nothing, are not unique', () => {
  const other = report({ random: 'ee', machineId: 'ff', bootId: 'gg', hostname: 'hh' });
  assert.deepEqual(failed(judgeUniqueness(report(), other)), []);
  for (const name of ['random', 'machineId', 'bootId', 'hostname'] as const) {
    const same = report({ random: 'ee', machineId: 'ff', bootId: 'gg', hostname: 'hh', [name]: good[name] });
    assert.deepEqual(failed(judgeUniqueness(report(), same)), [`unique: ${name}`]);
  }
  assert.equal(failed(judgeUniqueness(report({ random: 1 }), report({ random: '' }))).length, 4);
});

test('nothing that a clone reports makes the judgement throw, or pass by its form', () => {
  fc.assert(
    fc.property(fc.jsonValue(), fc.jsonValue(), (value, checks) => {
      for (const item of [value, { checks }, { ...good, checks: [value, checks] }]) {
        const parsed = parseReport(item);
        if (parsed === undefined) continue;
        assert.ok(failed(judgeReport(parsed, [])).length > 0);
        judgeLimits(parsed, granted);
        judgeUniqueness(parsed, parsed);
      }
    }),
  );
  assert.equal(parseReport({ checks: Array.from({ length: 1_000 }, () => ({})) }), undefined);
});
