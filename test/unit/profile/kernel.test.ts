/**
 * Goal: the kernel policy follows from image, level, rules and request, never loosens with the threat, and its digests
 * are those of the very bytes that are sent.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { digestOf } from '../../../src/core/json.ts';
import { limits } from '../../../src/core/limits.ts';
import { policyClasses } from '../../../src/profile/classes.ts';
import { generateProfile } from '../../../src/profile/generate.ts';
import { appArmorOf, filterOf } from '../../../src/profile/kernel.ts';
import { noNetwork } from '../../../src/profile/network.ts';
import { threatLevels } from '../../../src/profile/levels.ts';
import type { ThreatLevel } from '../../../src/profile/levels.ts';
import type { Profile } from '../../../src/profile/profile.ts';
import type { ProfileRequest, RequestedPaths } from '../../../src/profile/request.ts';

function profileOf(level: ThreatLevel, policy = 'compute', more: Partial<ProfileRequest> = {}): Profile {
  const image = { name: 'i', digest: `sha256:${'a'.repeat(64)}`, policy: { seccomp: policy, appArmor: policy } };
  const request: ProfileRequest = { image, limits: {}, minimumIsolation: 'tcg', ...more };
  const said = { level, wishes: [], reasons: [], destinations: [], denied: [] };
  return generateProfile({ request, codeBytes: 0, policy: said }).profile;
}

test('digests are those of the text and of the program', () => {
  for (const functionClass of policyClasses) {
    for (const level of threatLevels) {
      const profile = profileOf(level, functionClass);
      assert.equal(profile.kernel.appArmor.digest, digestOf(appArmorOf(profile)));
      assert.equal(profile.kernel.seccomp.digest, digestOf(filterOf(profile)));
      assert.deepEqual([profile.kernel.seccomp.class, profile.kernel.appArmor.class], [functionClass, functionClass]);
    }
  }
});

/** Lines that allow, and lines that deny. */
function linesOf(profile: Profile): { readonly allow: Set<string>; readonly deny: Set<string> } {
  const lines = appArmorOf(profile).split('\n').filter((line) => line.startsWith('  '));
  const deny = new Set(lines.filter((line) => line.startsWith('  deny ')));
  return { allow: new Set(lines.filter((line) => !deny.has(line))), deny };
}

test('a higher level allows nothing more and denies nothing less', () => {
  for (const functionClass of policyClasses) {
    for (const [index, level] of threatLevels.entries()) {
      const below = linesOf(profileOf(threatLevels[Math.max(0, index - 1)] ?? 'low', functionClass));
      const own = linesOf(profileOf(level, functionClass));
      for (const line of own.allow) assert.ok(below.allow.has(line), `${level} allows ${line}`);
      for (const line of below.deny) assert.ok(own.deny.has(line), `${level} does not deny ${line}`);
    }
  }
  const execute = threatLevels.map((level) => profileOf(level).kernel.execute);
  assert.deepEqual(execute, ['any', 'any', 'image', 'image', 'image']);
  assert.equal(profileOf('high').kernel.syscalls, 'strict');
  assert.deepEqual(profileOf('critical').fileSystem.readOnly, ['/dev/shm']);
});

test('property: whatever is requested, no path of a level is lost, and lists are sorted and free of doubles', () => {
  const paths = fc.array(fc.stringMatching(/^\/[a-z]{1,5}(\/[a-z]{1,5}){0,2}$/), { maxLength: 5 });
  fc.assert(fc.property(paths, fc.constantFrom(...threatLevels), (hidden, level) => {
    const wanted: RequestedPaths = { hidden: hidden.filter((path) => !/^\/(bin|lib|usr|opt|proc|dev)/.test(path)) };
    const { fileSystem } = profileOf(level, 'compute', { paths: wanted });
    for (const path of profileOf(level).fileSystem.hidden) assert.ok(fileSystem.hidden.includes(path));
    for (const path of wanted.hidden ?? []) assert.ok(fileSystem.hidden.includes(path));
    assert.deepEqual(fileSystem.hidden, [...new Set(fileSystem.hidden)].sort());
  }));
});

test('a network policy gives parsing classes their sockets', () => {
  const network = { ...noNetwork, mode: 'rules' } as const;
  const has = (profile: Profile): boolean => appArmorOf(profile).includes('network inet,');
  assert.deepEqual([has(profileOf('low', 'image')), has(profileOf('low', 'image', { network }))], [false, true]);
  assert.equal(has(profileOf('critical', 'compute')), true);
});

const refused: readonly (readonly [what: string, paths: RequestedPaths, message: RegExp])[] = [
  ['relative', { hidden: ['etc'] }, /no absolute path/],
  ['the root', { hidden: ['/'] }, /no absolute path/],
  ['a slash at the end', { hidden: ['/etc/'] }, /no absolute path/],
  ['..', { hidden: ['/etc/../usr'] }, /no absolute path/],
  ['a control character', { hidden: ['/etc/a\n}'] }, /no absolute path/],
  ['too long', { hidden: [`/${'x'.repeat(limits.policyPathUnits)}`] }, /no absolute path/],
  ['what programs need', { hidden: ['/usr/lib'] }, /cannot be hidden/],
  ['read-only already', { readOnly: ['/etc'] }, /read-only already/],
  ['too many', { hidden: Array.from({ length: limits.policyPathsMax + 1 }, (_, at) => `/p${at}`) }, /at most 64/],
];
for (const [what, paths, message] of refused) {
  test(`a path is refused: ${what}`, () => {
    assert.throws(() => profileOf('low', 'compute', { paths }), { code: 'E_LIMIT_INVALID', message });
  });
}

test('a class that nobody knows is refused', () => {
  assert.throws(() => profileOf('low', 'games'), { code: 'E_IMAGE_INCOMPATIBLE', message: /games.*compute/ });
});
