/** What is missing on the system is found out, named exactly, and never guessed. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MayflyError } from '../../../src/core/errors.ts';
import { installPackages, notInstalled, systemPackages } from '../../../scripts/setup/packages.ts';

test('only a package that dpkg calls installed is there', () => {
  const report = 'gcc installed\nmusl-tools config-files\nqemu-system-x86 half-installed\nerofs-utils not-installed\n';
  const names = ['gcc', 'musl-tools', 'qemu-system-x86', 'erofs-utils', 'apparmor'];
  assert.deepEqual(notInstalled(names, report), ['musl-tools', 'qemu-system-x86', 'erofs-utils', 'apparmor']);
});

test('every package says what it is for, and none is listed twice', () => {
  const names = systemPackages.map(([name]) => name);
  assert.equal(new Set(names).size, names.length);
  for (const [name, use] of systemPackages) assert.ok(use.length > 0, name);
});

test('without root the error names exactly the packages and the command', async () => {
  const signal = new AbortController().signal;
  await assert.rejects(
    installPackages(['erofs-utils', 'musl-tools'], undefined, signal, () => assert.fail('nothing is installed')),
    (thrown) => {
      assert.ok(thrown instanceof MayflyError);
      assert.equal(thrown.code, 'E_PACKAGES_MISSING');
      assert.match(thrown.message, /missing: erofs-utils, musl-tools\.$/);
      assert.match(thrown.remedy, /`apt-get install --no-install-recommends erofs-utils musl-tools`/);
      return true;
    },
  );
});
