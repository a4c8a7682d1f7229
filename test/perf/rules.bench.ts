/**
 * What it costs to decide a profile: 200 rules, an event of 4 KB, from accepted event to sealed profile.
 * `node test/perf/rules.bench.ts`
 */
import { performance } from 'node:perf_hooks';
import { decideCase } from '../../src/policy.ts';
import { loadRules, requireRules } from '../../src/rules/load.ts';
import type { RuleSet } from '../../src/rules/rule.ts';
import { anyFunction } from '../../src/rules/suite.ts';
import type { RuleCase } from '../../src/rules/suite.ts';
import { printTable, row, timeHead } from './table.ts';

const conditions = [
  'event.type == "com.example.upload.NUMBER" && event.data.size > NUMBER.0',
  'source.tenant == "tenant-NUMBER" || level == "critical"',
  'has(event.data.user) && event.data.user.roles.exists(r, r == "role-NUMBER")',
  'event.source.startsWith("/partner/NUMBER/") && score > 20',
  'event.data.items.exists(i, i.url.matches("^https?://host-NUMBER\\\\.example\\\\.com/"))',
];

function makeRules(count: number): RuleSet {
  const rules = Array.from({ length: count }, (_, index) => {
    const when = (conditions[index % conditions.length] ?? '').replaceAll('NUMBER', String(index));
    return `- name: rule-${index}\n  when: ${JSON.stringify(when)}\n  then: { lower: { limits.pids: ${20 + index} } }`;
  });
  return requireRules(
    loadRules([{ name: 'bench.yaml', bytes: Buffer.from(`rulesVersion: 1\nrules:\n${rules.join('\n')}`) }]),
  );
}

function makeCase(bytes: number): RuleCase {
  const items: { id: number; url: string }[] = [];
  const user = { name: 'somebody', roles: ['reader', 'writer'] };
  const event = (): string =>
    JSON.stringify({
      specversion: '1.0',
      id: '1',
      source: '/bench',
      type: 'com.example.upload',
      data: { size: 5000, user, items },
    });
  while (event().length < bytes) items.push({ id: items.length, url: `https://www.example.com/path/${items.length}` });
  return {
    event: Buffer.from(event()),
    source: { ip: '192.0.2.1', tenant: 'tenant-7' },
    function: anyFunction,
    atMillis: 0,
    threat: { score: 30, level: 'guarded', indicators: [] },
  };
}

const from = performance.now();
const rules = makeRules(200);
const loaded = performance.now() - from;
const one = makeCase(4096);
const measure = (set: RuleSet | undefined): number[] => {
  const times: number[] = [];
  for (let round = 0; round < 5000; round++) {
    const start = performance.now();
    decideCase(one, set);
    if (round >= 1000) times.push((performance.now() - start) * 1000);
  }
  return times;
};
printTable(
  `A profile for an event of ${one.event.length} bytes (200 rules load in ${loaded.toFixed(0)} ms)`,
  timeHead,
  [row('without rules', measure(undefined), 'µs'), row('200 rules', measure(rules), 'µs')],
);
