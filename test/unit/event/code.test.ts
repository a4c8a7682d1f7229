/**
 * Goal: what is shipped into a clone is the function, all of it, nothing else, and never more than the limits. Method:
 * pack real folders, among them the ones that a careless or hostile author would make.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import fc from 'fast-check';
import { MayflyError } from '../../../src/core/errors.ts';
import type { ErrorCode } from '../../../src/core/errors.ts';
import { limits } from '../../../src/core/limits.ts';
import { packFunction } from '../../../src/event/code.ts';
import type { PackedFunction, PackOptions } from '../../../src/event/code.ts';

let folder = '';
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'mayfly-code-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function put(path: string, content = '', mode = 0o644): string {
  const file = join(folder, path);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, content, { mode });
  return file;
}

function link(path: string, target: string): string {
  const file = join(folder, path);
  mkdirSync(dirname(file), { recursive: true });
  symlinkSync(target, file);
  return file;
}

/** One line per entry: kind, path, and content or target. */
function listed({ entries }: PackedFunction): string[] {
  return entries.map((entry) => {
    if (entry.kind === 'folder') return `folder ${entry.path}`;
    if (entry.kind === 'link') return `link ${entry.path} ${entry.target}`;
    return `file ${entry.path} ${entry.content.toString('utf8')}`;
  });
}

async function refused(options: PackOptions, code: ErrorCode, said: RegExp): Promise<void> {
  await assert.rejects(packFunction(options), (thrown: unknown) => {
    assert.ok(thrown instanceof MayflyError);
    assert.equal(thrown.code, code);
    assert.match(thrown.message, said);
    return true;
  });
}

test('a handler is shipped alone, whatever else stands in its folder', async () => {
  put('secrets.env', 'KEY=1');
  const packed = await packFunction({ entry: put('h.mjs', 'handler') });
  assert.deepEqual(listed(packed), ['file h.mjs handler']);
  assert.deepEqual([packed.entry, packed.bytes, packed.root], ['/function/h.mjs', 7, undefined]);
});

test('a handler that is a link, or a link to a link, is shipped as the file that is meant', async () => {
  put('store/real.mjs', 'handler');
  link('one.mjs', 'store/real.mjs');
  const packed = await packFunction({ entry: link('two.mjs', 'one.mjs') });
  assert.deepEqual(listed(packed), ['file two.mjs handler']);
});

test('a package beside it brings the folder, sorted, without the history of version control', async () => {
  put('b.txt', 'b');
  put('.git/config', 'history');
  put('node_modules/dep/index.js', 'dep');
  put('node_modules/dep/.svn/entries', 'history');
  link('node_modules/.bin/dep', '../dep/index.js');
  const packed = await packFunction({ entry: put('a.mjs', 'a') });
  assert.deepEqual(listed(packed), [
    'file a.mjs a', 'file b.txt b', 'folder node_modules', 'folder node_modules/.bin',
    'link node_modules/.bin/dep ../dep/index.js', 'folder node_modules/dep', 'file node_modules/dep/index.js dep',
  ]);
  assert.deepEqual([packed.bytes, packed.root], [5, folder]);
  rmSync(join(folder, 'node_modules'), { recursive: true });
  put('package.json', '{}');
  assert.equal((await packFunction({ entry: join(folder, 'a.mjs') })).root, folder);
});

test('a folder that is named is shipped, with the entry somewhere inside', async () => {
  put('lib/x.py', 'x');
  const packed = await packFunction({ entry: put('..odd/h.py', 'h'), folder });
  assert.deepEqual(listed(packed), ['folder ..odd', 'file ..odd/h.py h', 'folder lib', 'file lib/x.py x']);
  assert.equal(packed.entry, '/function/..odd/h.py');
  await refused({ entry: join(folder, 'lib/x.py'), folder: join(folder, '..odd') }, 'E_HANDLER_MISSING', /not inside/);
});

test('permissions are kept as far as they mean anything: no set-user-id, no writing for others', async () => {
  const [entry] = (await packFunction({ entry: put('run.sh', '', 0o4777) })).entries;
  assert.equal(entry?.mode, 0o755);
});

test('a handler that is missing, a folder or no file at all', async () => {
  await refused({ entry: join(folder, 'no.mjs') }, 'E_HANDLER_MISSING', /no\.mjs: there is no such file/);
  await refused({ entry: folder }, 'E_HANDLER_MISSING', /is a folder/);
  await refused({ entry: '/dev/null' }, 'E_HANDLER_MISSING', /not a regular file/);
  await refused({ entry: join(folder, 'x'.repeat(300)) }, 'E_HANDLER_MISSING', /cannot be read \(ENAMETOOLONG\)/);
  await refused({ entry: link('dangling.mjs', 'nowhere') }, 'E_HANDLER_MISSING', /no such file/);
});

test('links stay inside, pipes and sockets do not travel', async () => {
  const entry = put('h.mjs');
  for (const target of ['/etc/passwd', '..', '../other', 'sub/../../other', './../x/../../y']) {
    const leaving = link('leaving', target);
    await refused({ entry, folder }, 'E_CODE_UNSAFE', /leaves the function/);
    rmSync(leaving);
  }
  link('sub/fine', '../h.mjs');
  link('sub/dangling', 'nowhere');
  await packFunction({ entry, folder });
  execFileSync('mkfifo', [join(folder, 'pipe')]);
  await refused({ entry, folder }, 'E_CODE_UNSAFE', /pipe is a device, socket or pipe/);
});

test('more than the limits is refused with the number, before it is read', async () => {
  const entry = put('h.mjs');
  truncateSync(put('large'), limits.codeBytesMax + 1);
  const said = new RegExp(`more than ${limits.codeBytesMax} bytes \\(at large\\)`);
  await refused({ entry, folder }, 'E_CODE_TOO_LARGE', said);
  await refused({ entry: join(folder, 'large') }, 'E_CODE_TOO_LARGE', /bytes/);
  rmSync(join(folder, 'large'));
  put(`${'d'.repeat(250)}/`.repeat(5).concat('f'));
  await refused({ entry, folder }, 'E_CODE_TOO_LARGE', new RegExp(`more than ${limits.codePathBytesMax} bytes`));
});

test('too many files are refused with the number', async () => {
  const entry = put('h.mjs');
  for (let i = 0; i < limits.codeEntriesMax; i++) symlinkSync('h.mjs', join(folder, `l${i}`));
  await refused({ entry, folder }, 'E_CODE_TOO_LARGE', new RegExp(`more than ${limits.codeEntriesMax} files`));
});

test('two files may fill the limit together and not pass it', async () => {
  const entry = put('a');
  truncateSync(entry, limits.codeBytesMax - 1);
  put('b', 'b');
  assert.equal((await packFunction({ entry, folder })).bytes, limits.codeBytesMax);
  put('c', 'c');
  await refused({ entry, folder }, 'E_CODE_TOO_LARGE', /at c/);
});

test('a file that has more than its size says is read whole', async () => {
  const [entry] = (await packFunction({ entry: '/proc/self/status' })).entries;
  assert.ok(entry?.kind === 'file' && entry.content.includes('Threads:') && entry.content.at(-1) === 0x0a);
});

test('property: every file arrives with its bytes, and folders come before what is in them', async () => {
  const name = fc.stringMatching(/^[a-zé._-]{1,6}$/).filter((text) => text !== '.' && text !== '..');
  const path = fc.array(name, { minLength: 1, maxLength: 3 }).map((parts) => parts.join('/'));
  const tree = fc.dictionary(path, fc.uint8Array());
  await fc.assert(
    fc.asyncProperty(tree, async (files) => {
      rmSync(folder, { recursive: true });
      const entry = put('entry.mjs');
      const wanted = new Map<string, string>();
      for (const [path, bytes] of Object.entries(files)) {
        try {
          mkdirSync(dirname(join(folder, path)), { recursive: true });
          writeFileSync(join(folder, path), bytes, { flag: 'wx' });
          wanted.set(path, Buffer.from(bytes).toString('hex'));
        } catch {
          // One name is a file here and a folder there: the first one stays.
        }
      }
      const { entries } = await packFunction({ entry, folder });
      const seen = new Set<string>(['.']);
      for (const each of entries) {
        assert.ok(seen.has(dirname(each.path)), `${each.path} before its folder`);
        seen.add(each.path);
        if (each.kind === 'file' && each.path !== 'entry.mjs') {
          assert.equal(each.content.toString('hex'), wanted.get(each.path));
          wanted.delete(each.path);
        }
      }
      assert.deepEqual([...wanted.keys()], []);
    }),
    { numRuns: 40 },
  );
});
