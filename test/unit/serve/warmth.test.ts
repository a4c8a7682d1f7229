/** Goal: clones wait where events come, within what the service may spend, and for the version and profile in use. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { FunctionVersion } from '../../../src/function/version.ts';
import type { Manifest } from '../../../src/function/manifest.ts';
import { Warmth } from '../../../src/serve/warmth.ts';
import { SimulatedClock } from '../../sim/world.ts';
import { PlayedRunner, profile } from './rig.ts';

function version(name: string, warm: number | null, digest = 'v1'): FunctionVersion {
  return {
    digest,
    manifest: { name, warm } as Manifest,
    workload: {} as FunctionVersion['workload'],
    rules: undefined,
    bytes: 0,
  };
}

interface Setting {
  readonly warmth: Warmth;
  readonly runner: PlayedRunner;
  /** The last target of each function. */
  targets(): Record<string, number>;
  pass(millis: number): Promise<void>;
}

function setting(most: number): Setting {
  const [clock, runner] = [new SimulatedClock(), new PlayedRunner()];
  const log = { info: () => {}, warn: () => {}, error: () => {} };
  const warmth = new Warmth({ runner, clock, log, most });
  return {
    warmth, runner,
    targets: () => Object.fromEntries(runner.kept.map(({ name, target }) => [name, target])),
    async pass(millis) {
      const past = new Promise<void>((resolve) => clock.after(millis, resolve));
      await clock.run(past);
      await warmth.look();
    },
  };
}

test('what a manifest asks for waits before there was an event; others only while events come', async () => {
  const { warmth, targets, pass } = setting(64);
  const [asked, none, idle] = [version('asked', 2), version('none', 0), version('idle', null)];
  for (const each of [asked, none, idle]) warmth.use('acme', each);
  await pass(1_000);
  assert.deepEqual(targets(), { asked: 2 });
  warmth.arrived('acme', idle);
  await pass(1_000);
  assert.equal(targets()['idle'], 1);
  await pass(11 * 60_000);
  assert.equal(targets()['idle'], 0, 'ten quiet minutes end it');
  assert.equal(targets()['asked'], 2);
});

test('targets follow the rate, and never exceed what may wait altogether', async () => {
  const { warmth, targets, pass, runner } = setting(10);
  const [busy, quiet, asked] = [version('busy', null), version('quiet', null), version('asked', 3)];
  for (const each of [busy, quiet, asked]) warmth.use('acme', each);
  for (let second = 0; second < 20; second++) {
    for (let i = 0; i < 40; i++) warmth.arrived('acme', busy);
    warmth.arrived('acme', quiet);
    await pass(1_000);
    const last = targets();
    assert.ok(Object.values(last).reduce((sum, each) => sum + each, 0) <= 10, JSON.stringify(last));
  }
  assert.deepEqual(targets(), { asked: 3, busy: 7 });
  // At no moment in between either: the pool would refuse it.
  const now = new Map<string, number>();
  for (const { name, target } of runner.kept) {
    now.set(name, target);
    assert.ok([...now.values()].reduce((sum, each) => sum + each, 0) <= 10);
  }
});

test('a new version, and a new profile, let the old clones go first', async () => {
  const { warmth, runner, pass } = setting(10);
  const first = version('f', 2);
  warmth.use('acme', first);
  await pass(1_000);
  warmth.seen('acme', first, profile('other'));
  const second = version('f', 2, 'v2');
  warmth.use('acme', second);
  await pass(1_000);
  warmth.seen('acme', first, profile('late'));
  warmth.forget(() => false);
  assert.deepEqual(runner.kept.map(({ digest, target }) => `${digest} ${target}`), [
    'p 2', 'p 0', 'other 2', 'other 0', 'p 2', 'p 0',
  ]);
});
