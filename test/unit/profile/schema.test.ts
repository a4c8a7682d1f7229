/**
 * Goal: docs/schema/profile.json is the format of profiles: what is generated fits it, and nothing else does.
 * Method: random profiles of every level; then each with a member too many, missing or of another kind.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { Ajv2020 } from 'ajv/dist/2020.js';
import fc from 'fast-check';
import { limits } from '../../../src/core/limits.ts';
import { generateProfile, ramClasses } from '../../../src/profile/generate.ts';
import { threatLevels } from '../../../src/profile/levels.ts';
import { noNetwork } from '../../../src/profile/network.ts';
import type { NetworkPolicy } from '../../../src/profile/network.ts';
import { fieldNames, fieldOrders } from '../../../src/profile/order.ts';
import type { Profile } from '../../../src/profile/profile.ts';

const path = join(import.meta.dirname, '../../../docs/schema/profile.json');
const schema = JSON.parse(readFileSync(path, 'utf8')) as Schema;

interface Schema {
  readonly properties: Readonly<Record<string, Schema>>;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly enum?: readonly unknown[];
}

const fits = new Ajv2020({ strict: true, allErrors: true }).compile<Profile>(schema);

const number = (
  field: 'memoryBytes' | 'wallMillis' | 'pids' | 'scratchBytes' | 'outputBytes',
): fc.Arbitrary<number> => {
  const { min, max } = fieldOrders[`limits.${field}`];
  return fc.integer({ min, max });
};

const image = { name: 'node', digest: `sha256:${'0'.repeat(64)}` };
const somewhere: NetworkPolicy = {
  mode: 'rules',
  rules: [
    { action: 'allow', host: '*.example.com', ports: [[443, 443]] },
    { action: 'deny', cidr: '192.0.2.0/24' },
    { action: 'allow', cidr: '10.0.0.0/8', private: true },
  ],
  tls: { noName: 'deny', ech: 'allow' },
  limits: { connections: 10, connectionsPerSecond: 5, bytes: 1000 },
};

const anyProfile = fc
  .record({
    memoryBytes: number('memoryBytes'),
    wallMillis: number('wallMillis'),
    pids: number('pids'),
    scratchBytes: number('scratchBytes'),
    outputBytes: number('outputBytes'),
    codeBytes: fc.nat({ max: limits.codeBytesMax }),
    level: fc.constantFrom(...threatLevels),
    minimumIsolation: fc.constantFrom('tcg' as const, 'kvm' as const),
    network: fc.constantFrom(noNetwork, somewhere),
    denied: fc.constantFrom([], [{ rule: { action: 'deny' as const, host: 'bad.example' }, because: 'listed' }]),
  })
  .map(
    ({ codeBytes, level, minimumIsolation, network, denied, ...wanted }) =>
      generateProfile({
        codeBytes,
        request: { image, limits: wanted, minimumIsolation, network },
        policy: { level, wishes: [], reasons: [], destinations: [], denied },
      }).profile,
  );

test('property: every generated profile fits the schema', () => {
  fc.assert(
    fc.property(anyProfile, (profile) => {
      assert.ok(fits(profile), JSON.stringify(fits.errors));
    }),
  );
});

test('property: a profile with a member too many, too few or of another kind does not fit', () => {
  fc.assert(
    fc.property(anyProfile, fc.constantFrom('limits', 'kernel', 'shape', 'image'), (profile, group) => {
      const members = profile[group as 'limits'] as unknown as Record<string, unknown>;
      assert.ok(!fits({ ...profile, extra: 1 }));
      assert.ok(!fits({ ...profile, [group]: { ...members, extra: 1 } }));
      for (const name of Object.keys(members)) {
        const { [name]: _left, ...rest } = members;
        assert.ok(!fits({ ...profile, [group]: rest }), name);
        assert.ok(!fits({ ...profile, [group]: { ...members, [name]: null } }), name);
      }
    }),
    { numRuns: 20 },
  );
});

test('bounds of the schema are those of the code', () => {
  for (const field of fieldNames) {
    const [group = '', name = ''] = field.split('.');
    const published = schema.properties[group]?.properties[name];
    const order = fieldOrders[field];
    if (order.kind === 'ladder') assert.deepEqual(published?.enum, order.steps);
    else if (name !== 'scratchBytes')
      assert.deepEqual([published?.minimum, published?.maximum], [order.min, order.max], name);
  }
  assert.deepEqual(schema.properties['shape']?.properties['ramBytes']?.enum, ramClasses);
});
