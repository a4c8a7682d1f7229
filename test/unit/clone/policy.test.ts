/**
 * Goal: every policy that a profile can have compiles for the guest's kernel, once; a rule that the kernel cannot
 * enforce, a damaged copy and a parser that fails are never taken for a policy. Method: the real apparmor_parser, with
 * the features of the guest's kernel as an agent has told them.
 */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, beforeEach, test } from 'node:test';
import { policyCompiler } from '../../../src/clone/policy.ts';
import type { CompilePolicy } from '../../../src/clone/policy.ts';
import { limits } from '../../../src/core/limits.ts';
import { appArmorText, executeLevels, templatePolicyText } from '../../../src/profile/apparmor.ts';
import { policyClasses } from '../../../src/profile/classes.ts';

const features = readFileSync(join(import.meta.dirname, 'features.txt'), 'utf8');
const home = mkdtempSync(join(tmpdir(), 'mayfly-policy-'));
const folder = join(home, 'policies');
after(() => rmSync(home, { recursive: true }));

let compile: CompilePolicy;
/** As another process would, that has compiled nothing yet. */
beforeEach(() => {
  compile = policyCompiler({ home, builder: '1-1' });
});

const source = {
  functionClass: 'compute', execute: 'image', network: true, writable: ['/tmp', '/dev/shm'], readOnly: ['/dev/shm'],
  hidden: ['/etc/a b', '/etc/[x]*?{y}', '/etc/"quoted"\\'],
} as const;

test('every class compiles, the same text always to the same bytes, small enough for one message', async () => {
  for (const functionClass of policyClasses) {
    for (const execute of executeLevels) {
      const text = appArmorText({ ...source, functionClass, execute });
      const bytes = await compile(text, features);
      assert.ok(bytes.length > 1000 && bytes.length < limits.policyBytesMax, String(bytes.length));
      assert.deepEqual(await policyCompiler({ home: join(home, 'other'), builder: '2-2' })(text, features), bytes);
    }
  }
  assert.ok((await compile(templatePolicyText, features)).length > 1000);
});

test('the most paths that a profile can have still fit', async () => {
  const path = (at: number): string => `/srv/customer-${at}/private/${'x'.repeat(40)}`;
  const hidden = Array.from({ length: limits.policyPathsMax }, (_, at) => path(at));
  const bytes = await compile(appArmorText({ ...source, hidden }), features);
  assert.ok(bytes.length < limits.policyBytesMax, String(bytes.length));
});

test('it is kept, used again by another process, and made anew when the copy is damaged', async () => {
  const text = appArmorText({ ...source, hidden: ['/kept'] });
  const before = new Set(readdirSync(folder));
  const bytes = await compile(text, features);
  const [name = ''] = readdirSync(folder).filter((each) => !before.has(each));
  const path = join(folder, name);
  assert.equal(statSync(path).mode & 0o777, 0o600);
  // Something that only the copy can say: another process takes it from there.
  const marked = Buffer.from('marked');
  writeFileSync(path, Buffer.concat([createHash('sha256').update(marked).digest(), marked]));
  assert.deepEqual(await policyCompiler({ home, builder: '2-2' })(text, features), marked);
  for (const damage of [Buffer.alloc(0), Buffer.from('short'), Buffer.alloc(5000, 1)]) {
    writeFileSync(path, damage);
    assert.deepEqual(await policyCompiler({ home, builder: '2-2' })(text, features), bytes);
  }
  assert.deepEqual(readdirSync(folder).filter((each) => each.includes('.')), []);
});

test('a rule that the kernel cannot enforce is an error, never a weaker policy', async () => {
  const without = features.replace(/network_v8 \{af_mask[^}]*\}\n(tcp[^}]*\}\n)?\}\n/, '');
  assert.notEqual(without, features);
  await assert.rejects(compile(appArmorText(source), without), { code: 'E_POLICY_COMPILE', message: /network/ });
});

test('what is no policy, and features that are none, are errors with the parser\'s words', async () => {
  await assert.rejects(compile('profile mayfly { nonsense, }', features), {
    code: 'E_POLICY_COMPILE', message: /syntax error/i,
  });
  await assert.rejects(compile(templatePolicyText, '{{{'), { code: 'E_POLICY_COMPILE' });
  // And a failure is not kept.
  assert.ok((await compile(templatePolicyText, features)).length > 1000);
});

test('a folder that cannot be written to is an error of the operator', async () => {
  writeFileSync(join(home, 'file'), '');
  await assert.rejects(policyCompiler({ home: join(home, 'file'), builder: '1-1' })(templatePolicyText, features), {
    code: 'E_POLICY_COMPILE', blame: 'operator',
  });
});
