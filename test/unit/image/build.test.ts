/**
 * Goal: a Mayflyfile means what it says or is refused with its line; the same directory gives the same bytes; nothing
 * outside of it gets in. Method: files, directories and answers of a base made here, and the real steps of a build.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmod, mkdir, mkdtemp, readFile, rm, symlink, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import fc from 'fast-check';
import type { App } from '../../../src/app.ts';
import { buildImage } from '../../../src/build.ts';
import type { BuiltImage } from '../../../src/build.ts';
import { MayflyError } from '../../../src/core/errors.ts';
import { parseInstructions, refuserOf, wordsOf } from '../../../src/image/build/file.ts';
import type { BuildItem } from '../../../src/image/build/context.ts';
import { parsePlaces, placeItems } from '../../../src/image/build/place.ts';
import type { Place } from '../../../src/image/build/place.ts';
import { baseOf, planBuild } from '../../../src/image/build/plan.ts';
import type { BuildPlan } from '../../../src/image/build/plan.ts';
import { imageRig } from './rig.ts';

const refuse = refuserOf('Mayflyfile');

function plan(text: string, env: readonly (readonly [string, string])[] = []): BuildPlan {
  const instructions = parseInstructions(text, refuse);
  baseOf(instructions, refuse);
  return planBuild(instructions, { env: new Map(env), workingDir: '/' }, refuse);
}

test('what a file says: continued lines, comments, variables, both forms, relative targets', () => {
  const { copies, entrypoint, cmd, env, workingDir, notes } = plan(`# a comment
FROM node
ENV A=1 B="two words" \\
  # between continued lines
  C=$A-\${B}
ENV PATH /app/bin:$PATH
WORKDIR /app
WORKDIR sub
COPY one two/ ./
COPY --chmod=600 ["with space", "/etc/$A"]
USER www-data
EXPOSE 80
CMD ["serve", "--fast"]
ENTRYPOINT start me
`, [['PATH', '/bin']]);
  assert.deepEqual([...env], [['A', '1'], ['B', 'two words'], ['C', '1-two words'], ['PATH', '/app/bin:/bin']]);
  assert.equal(workingDir, '/app/sub');
  assert.deepEqual(copies.map(({ sources, target, intoFolder, mode }) => [sources, target, intoFolder, mode]), [
    [['one', 'two'], '/app/sub', true, undefined],
    [['with space'], '/etc/1', false, 0o600],
  ]);
  assert.deepEqual([entrypoint, cmd], [['/bin/sh', '-c', 'start me'], ['serve', '--fast']]);
  assert.deepEqual(notes.map((note) => note.slice(0, 21)), ['line 11: USER www-dat', 'line 12: EXPOSE means']);
  assert.deepEqual(wordsOf(`a 'b c' "d\\"e" f\\ g ""`, 1, refuse), ['a', 'b c', 'd"e', 'f g', '']);
});

test('bad files are refused with the number of their line', () => {
  const bad: readonly (readonly [string, number, string])[] = [
    ['COPY a b', 1, 'E_BUILD_FILE'],
    ['\n# x\nFROM', 3, 'E_BUILD_FILE'],
    ['FROM a AS b', 1, 'E_IMAGE_UNSUPPORTED'],
    ['FROM --platform=linux/arm64 a', 1, 'E_IMAGE_UNSUPPORTED'],
    ['FROM a\nRUN apt-get update', 2, 'E_IMAGE_UNSUPPORTED'],
    ['FROM a\n\nARG x=1', 3, 'E_IMAGE_UNSUPPORTED'],
    ['FROM a\nFROM b', 2, 'E_IMAGE_UNSUPPORTED'],
    ['FROM a\nADD https://host.example/x /', 2, 'E_IMAGE_UNSUPPORTED'],
    ['FROM a\nCOPY --from=b x y', 2, 'E_IMAGE_UNSUPPORTED'],
    ['FROM a\nCOPY --chown=1:1 x y', 2, 'E_IMAGE_UNSUPPORTED'],
    ['FROM a\nCOPY *.txt /', 2, 'E_IMAGE_UNSUPPORTED'],
    ['FROM a\nCOPY ../../etc/passwd /', 2, 'E_BUILD_FILE'],
    ['FROM a\nCOPY x', 2, 'E_BUILD_FILE'],
    ['FROM a\nCOPY x y z', 2, 'E_BUILD_FILE'],
    ['FROM a\nCOPY x /tmp/y', 2, 'E_BUILD_FILE'],
    ['FROM a\nCOPY x /a/../proc/y', 2, 'E_BUILD_FILE'],
    ['FROM a\nCOPY --chmod=u+s x y', 2, 'E_BUILD_FILE'],
    ['FROM a\nCOPY --chmod=4755 x y', 2, 'E_BUILD_FILE'],
    ['FROM a\nCOPY [1, 2]', 2, 'E_BUILD_FILE'],
    ['FROM a\nCOPY ["x"', 2, 'E_BUILD_FILE'],
    ['FROM a\nENV 1=2', 2, 'E_BUILD_FILE'],
    ['FROM a\nENV A="x', 2, 'E_BUILD_FILE'],
    [`FROM a\nENV A=\${B:-c}`, 2, 'E_IMAGE_UNSUPPORTED'],
    ['FROM a\nWORKDIR', 2, 'E_BUILD_FILE'],
    ['FROM a\nLABEL x', 2, 'E_BUILD_FILE'],
    ['FROM a\nCMD x \\', 2, 'E_BUILD_FILE'],
    ['FROM a\n!', 2, 'E_BUILD_FILE'],
    ['FROM a\0', 1, 'E_BUILD_FILE'],
    [`FROM a\n${'ENV A=1\n'.repeat(300)}`, 257, 'E_BUILD_FILE'],
    [`FROM a\nCMD ${'x'.repeat(70_000)}`, 1, 'E_BUILD_FILE'],
  ];
  for (const [text, line, code] of bad) {
    assert.throws(() => plan(text), (thrown) => {
      assert.ok(thrown instanceof MayflyError, text);
      assert.deepEqual([thrown.code, thrown.message.startsWith(`Mayflyfile:${line}: `)], [code, true], thrown.message);
      return true;
    }, text);
  }
});

test('property: no file makes the parser throw anything but its codes, or take long', () => {
  const pieces = ['FROM', 'COPY', 'ENV', '[', '"', "'", '\\', '$', '${', '--chmod=', '#', ' ', '\n', 'a', '='];
  const word = fc.constantFrom(...pieces);
  fc.assert(fc.property(fc.oneof(fc.string(), fc.array(word, { maxLength: 60 }).map((it) => it.join(''))), (text) => {
    for (const whole of [text, `FROM a\n${text}`, `FROM a\nCOPY ${text}`, `FROM a\nENV A=${text}`]) {
      try {
        plan(whole);
      } catch (thrown) {
        assert.ok(thrown instanceof MayflyError, String(thrown));
        assert.match(thrown.message, /^Mayflyfile:\d+: /);
      }
    }
  }));
});

const place = (real: string, kind: Place['kind'] = 'none', modes: readonly number[] = []): Place => {
  return { real, kind, modes };
};
const file: BuildItem = { kind: 'file', mode: 0o755, size: 0, from: '/x' };
const folderItem: BuildItem = { kind: 'folder', mode: 0o755 };

test('files come to stand where the links of the base lead, and its folders keep their modes', () => {
  const placed = placeItems(
    new Map<string, BuildItem>([['/bin/tool', file], ['/var/spool', folderItem], ['/top', file]]),
    new Map([
      ['/bin', place('/usr/bin', 'folder', [0o755, 0o711])],
      ['/var', place('/var', 'folder', [0o700])],
      ['/var/spool', place('/var/spool', 'none', [0o700])],
    ]),
  );
  assert.deepEqual([...placed].map(([path, item]) => [path, 'mode' in item ? item.mode : 0]), [
    ['/usr', 0o755], ['/usr/bin', 0o711], ['/var', 0o700], ['/var/spool', 0o755], ['/usr/bin/tool', 0o755],
    ['/top', 0o755],
  ]);
  for (const kind of ['file', 'program', 'hidden'] as const) {
    const places = new Map([['/bin', place('/bin', kind)]]);
    assert.throws(() => placeItems(new Map([['/bin/tool', file]]), places), { code: 'E_IMAGE_UNSAFE' });
  }
});

test('an answer of a base that is none is none: missing, relative, climbing, not in its form', () => {
  const good = { real: '/usr/bin', kind: 'folder', modes: [0o755, 0o4755] };
  assert.deepEqual(parsePlaces({ paths: [good] }, 1), [{ ...good, modes: [0o755, 0o755] }]);
  const wrong = [{ real: 'usr' }, { real: '/a/../b' }, { real: '/a\n' }];
  const bad = [...wrong, { kind: 'door' }, { modes: ['7'] }, { modes: 7 }];
  for (const different of bad) assert.equal(parsePlaces({ paths: [{ ...good, ...different }] }, 1), undefined);
  assert.equal(parsePlaces({ paths: [good] }, 2), undefined);
  fc.assert(fc.property(fc.jsonValue(), (value) => void parsePlaces({ paths: [value] }, 1)));
});

async function directory(t: TestContext, time: number): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'mayfly-build-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  await mkdir(join(folder, 'bin'));
  await mkdir(join(folder, '.git'));
  await writeFile(join(folder, '.git/config'), 'secret');
  await writeFile(join(folder, 'bin/tool'), '#!/bin/sh\n');
  await chmod(join(folder, 'bin/tool'), time === 1 ? 0o775 : 0o700);
  await writeFile(join(folder, 'note'), 'hello');
  await symlink('/etc/passwd', join(folder, 'link'));
  await utimes(join(folder, 'note'), time, time);
  return folder;
}

async function build(t: TestContext, context: string, text: string): Promise<BuiltImage & { readonly path: string }> {
  const rig = await imageRig(t);
  const app = { images: async () => rig } as unknown as App;
  const built = await buildImage(app, {
    name: 'made', context, file: { text, name: 'Mayflyfile' }, allowUnsigned: false, accelerator: 'tcg',
    signal: new AbortController().signal, say: () => {},
  });
  return { ...built, path: rig.catalogue.blobs.path(built.envelope.manifest.fileSystem.digest) };
}

const FILE = 'FROM scratch\nENV A=1\nCOPY . /app/\nENTRYPOINT ["/app/bin/tool"]\n';

test('the same directory gives the same image, whenever and with whatever umask it was checked out', async (t) => {
  const one = await build(t, await directory(t, 1), FILE);
  const two = await build(t, await directory(t, 2), FILE);
  assert.equal(one.envelope.digest, two.envelope.digest);
  assert.deepEqual(await readFile(one.path), await readFile(two.path));
  const { manifest } = one.envelope;
  assert.deepEqual(manifest.command, { entrypoint: ['/app/bin/tool'], cmd: [], env: ['A=1'] });
  assert.deepEqual([manifest.origin, manifest.layers.length, manifest.fileSystem.type], ['build', 0, 'squashfs']);
  const listed = execFileSync('unsquashfs', ['-d', '', '-lls', one.path], { encoding: 'utf8' });
  assert.match(listed, /lrwxrwxrwx .*\/app\/link -> \/etc\/passwd/);
  assert.match(listed, /-rwxr-xr-x .*\/app\/bin\/tool/);
  assert.ok(!listed.includes('.git') && listed.includes('/function'));
  const other = await build(t, await directory(t, 1), FILE.replace('A=1', 'A=2'));
  assert.notEqual(other.envelope.manifest.inputs, manifest.inputs);
});

test('a directory does not reach beyond itself, and what is missing has its line', async (t) => {
  const context = await directory(t, 1);
  await symlink('/etc', join(context, 'out'));
  const bad: readonly (readonly [string, string, RegExp])[] = [
    ['COPY out/passwd /x', 'E_BUILD_FILE', /:2: .*link out/],
    ['COPY absent /x', 'E_BUILD_FILE', /:2: .*absent/],
    ['ENTRYPOINT ["nothing"]', 'E_BUILD_FILE', /:2: nothing is no program/],
    ['COPY note /a\nCOPY bin /a', 'E_BUILD_FILE', /:3: \/a is a file/],
  ];
  for (const [line, code, message] of bad) {
    await assert.rejects(build(t, context, `FROM scratch\n${line}\n`), { code, message }, line);
  }
  execFileSync('mkfifo', [join(context, 'pipe')]);
  await assert.rejects(build(t, context, FILE), { code: 'E_IMAGE_UNSAFE', message: /pipe/ });
});
