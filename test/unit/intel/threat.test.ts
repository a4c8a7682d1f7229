/**
 * Goal: what intelligence knows reaches the profile and the broker: a listed source and a listed file get other
 * machines than a clean one, listed destinations are denied whatever a rule allows, and not knowing never permits more.
 * Method: the real index, assessment, rules and profile, purely; the broker's verdict with the real hook.
 */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { parseAllowList, parseNetworkFile } from '../../../src/egress/parse.ts';
import { decide } from '../../../src/egress/policy.ts';
import { assess } from '../../../src/intel/assess.ts';
import { deniedDestination } from '../../../src/intel/deny.ts';
import { observe } from '../../../src/intel/observe.ts';
import type { IntelSnapshot } from '../../../src/intel/snapshot.ts';
import { threatOf, unknownThreat } from '../../../src/intel/threat.ts';
import { decideCase } from '../../../src/policy.ts';
import { fieldNames, fieldOf, isStricter } from '../../../src/profile/order.ts';
import type { SealedProfile } from '../../../src/profile/profile.ts';
import type { Threat } from '../../../src/rules/context.ts';
import { anyFunction } from '../../../src/rules/suite.ts';
import { indicator, NOW, snapshotOf } from './rig.ts';

const sample = Buffer.from('a file that somebody has seen before, and did not like at all');
const sha256 = createHash('sha256').update(sample).digest('hex');
const listed = snapshotOf(
  [
    indicator({ kind: 'ip', value: '203.0.113.0/28', severity: 'medium', confidence: 80, labels: ['scanner'] }),
    indicator({ kind: 'domain', value: 'bad.example', labels: ['c2'] }),
    indicator({ kind: 'ip', value: '192.0.2.99', validUntil: NOW - 1 }),
  ],
  [indicator({ kind: 'hash', value: sha256, severity: 'critical', confidence: 95, labels: ['dropper'] })],
);

interface Given {
  readonly data?: unknown;
  readonly ip?: string;
  readonly snapshot?: IntelSnapshot;
}

async function threat({ data = {}, ip = '198.51.100.7', snapshot = listed }: Given): Promise<Threat> {
  const observed = await observe({ value: { data }, bytes: 100, sourceAddress: ip });
  const assessment = assess({ observed, snapshot, nowSeconds: NOW });
  return threatOf({ assessment, notes: [], whenDegraded: 'guarded', denies: () => true });
}

function profileFor(found: Threat, allow: readonly string[] = []): SealedProfile {
  const network = allow.length === 0 ? {} : { network: parseAllowList(allow) };
  const one = { event: Buffer.from('{}'), source: {}, function: anyFunction, threat: found, atMillis: 0, ...network };
  const decided = decideCase(one, undefined);
  assert.equal(decided.kind, 'profile');
  return decided.sealed;
}

const attachment = (content: Buffer): unknown => ({ name: 'a.txt', content: content.toString('base64') });

test('a clean source, a listed source and a listed file get three different machines, and each says why', async () => {
  const clean = profileFor(await threat({}));
  const source = profileFor(await threat({ ip: '203.0.113.7' }));
  const file = profileFor(await threat({ data: attachment(sample) }));
  const shown = ({ profile: { limits, forensics } }: SealedProfile) => [limits.memoryBytes, limits.pids, forensics];
  assert.deepEqual(shown(clean), [256 * 1024 ** 2, 128, { capture: 'never', retentionDays: 30 }]);
  assert.deepEqual(shown(source), [256 * 1024 ** 2, 128, { capture: 'on-violation', retentionDays: 30 }]);
  assert.deepEqual(shown(file), [192 * 1024 ** 2, 32, { capture: 'always', retentionDays: 30 }]);
  const why = ({ reasons }: SealedProfile) => reasons.filter(({ field }) => field === 'threat').map((r) => r.because);
  assert.match(why(source).join('\n'), /\+48 ip 203\.0\.113\.7 \(listed as 203\.0\.113\.0\/28\) at source address/);
  assert.match(why(source).join('\n'), /feed-0, medium, confidence 80, scanner/);
  assert.match(why(file).join('\n'), new RegExp(`\\+95 hash ${sha256} at data.content: feed-1, critical.*dropper`));
  assert.equal(new Set([clean, source, file].map(({ digest }) => digest)).size, 3);
});

test('listed destinations of the event are in its profile, denied before any allow, with the reason', async () => {
  const found = await threat({ data: { link: 'see https://x.bad.example/a', peer: '203.0.113.9' } });
  const { profile, reasons } = profileFor(found, ['*', '0.0.0.0/0']);
  const denied = profile.network.rules.filter(({ action }) => action === 'deny');
  assert.deepEqual(denied, [
    { action: 'deny', host: 'bad.example' },
    { action: 'deny', host: '*.bad.example' },
    { action: 'deny', cidr: '203.0.113.0/28' },
  ]);
  assert.ok(reasons.some(({ field, because }) =>
    field === 'network' && because === 'denied: bad.example is listed by feed-0 (high, confidence 80, c2)'));
  const nowhere = profileFor(found);
  assert.deepEqual(nowhere.profile.network.rules, [], 'nothing can be reached: there is nothing to deny');
});

test('every listed destination is denied when it is asked for or dialled, also one that no event has named', () => {
  const policy = parseNetworkFile('{"mode":"audit","rules":[{"allow":"*"},{"allow":"0.0.0.0/0"}]}');
  const judge = (name: string | undefined, address: string | undefined, snapshot = listed) =>
    decide(policy, { name, address, port: 443 }, (where) => deniedDestination(snapshot, where, NOW));
  assert.deepEqual(judge('a.b.bad.example', undefined), {
    allowed: false,
    because: 'a.b.bad.example (in bad.example) is listed by feed-0 (high, confidence 80, c2)',
  });
  assert.equal(judge('good.example', '203.0.113.8').because.startsWith('203.0.113.8 (in 203.0.113.0/28)'), true);
  assert.equal(judge('good.example', '8.8.8.8').allowed, true);
  assert.match(judge(undefined, '192.0.2.99').because, /reserved/, 'an indicator that has expired denies nothing');
  const onlyScored = { ...listed, feeds: listed.feeds.map((feed) => ({ ...feed, denies: false })) };
  assert.equal(judge('a.b.bad.example', undefined, onlyScored).allowed, true);
  assert.equal(decide(parseAllowList(['bad.example']), { name: 'bad.example', address: undefined, port: 443 }).allowed,
    true, 'without intelligence nothing is listed');
});

test('not knowing is said, and never permits more than knowing nothing bad', async () => {
  const feeds = listed.feeds.map((feed) => ({ ...feed, health: 'stale' as const }));
  const stale: IntelSnapshot = { ...listed, feeds };
  const [known, unknown] = [await threat({}), await threat({ snapshot: stale })];
  assert.deepEqual([known.level, unknown.level, unknown.score], ['low', 'guarded', 0]);
  assert.match(unknown.explanation?.join('\n') ?? '', /at least level guarded.*\nfeed feed-0 is stale/);
  const baseline = profileFor(known).profile;
  for (const each of [unknown, unknownThreat('E_INTERNAL: it broke', 'elevated')]) {
    const { profile } = profileFor(each);
    for (const field of fieldNames)
      assert.ok(!isStricter(field, fieldOf(baseline, field), fieldOf(profile, field)), field);
  }
});
