/**
 * Goal: a promise is worth its test, so the documents name tests that exist, and a promise without one says `pending`.
 * Method: every `test/…#words` and every path in the documents is looked up; every row of a promise has a state.
 */
import assert from 'node:assert/strict';
import { existsSync, globSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';

const root = join(import.meta.dirname, '../../..');
const documents = globSync(['*.md', 'docs/**/*.md'], { cwd: root });

function read(path: string): string {
  return readFileSync(join(root, path), 'utf8');
}

/** `test/FILE` or `test/FILE#WORDS`. */
function named(text: string): { readonly file: string; readonly words: string | undefined }[] {
  const names = text.matchAll(/`(test\/[\w./-]+\.test\.ts)(?:#([^`]+))?`/g);
  return [...names].map(([, file = '', words]) => ({ file, words }));
}

/** Rows of a document's tables whose first cell has this form, as cells. */
function rows(path: string, first: RegExp): string[][] {
  return read(path)
    .split('\n')
    .filter((line) => line.startsWith('|'))
    .map((line) => line.slice(1, -1).split('|').map((cell) => cell.trim()))
    .filter(([id = '']) => first.test(id));
}

test('every test that a document names exists, and has the words that it is named by', () => {
  for (const document of documents) {
    for (const { file, words } of named(read(document))) {
      assert.ok(existsSync(join(root, file)), `${document} names ${file}`);
      if (words !== undefined) assert.ok(read(file).includes(words), `${document}: ${file} has no "${words}"`);
    }
  }
});

for (const [document, id, least] of [
  ['docs/PROMISES.md', /^P\d+$/, 20],
  ['docs/THREAT-MODEL.md', /^[A-H]\d+$/, 60],
] as const) {
  test(`every row of ${document} names its tests or says pending`, () => {
    const found = rows(document, id);
    assert.ok(found.length >= least, `only ${found.length} rows`);
    const ids = found.map(([name]) => name);
    assert.equal(new Set(ids).size, ids.length, 'no id twice');
    for (const cells of found) {
      const state = cells.at(-1) ?? '';
      const tests = named(state);
      assert.ok(tests.length > 0 || /\b(pending|not applicable)\b/.test(state), `${cells[0]}: ${state}`);
    }
  });
}

test('no link of a document leads nowhere', () => {
  for (const document of documents) {
    for (const [, target = ''] of read(document).matchAll(/\]\((?!https?:|#)([^)#\s]+)(?:#[^)]*)?\)/g)) {
      assert.ok(existsSync(join(root, dirname(document), target)), `${document} links to ${target}`);
    }
  }
});

test('every path in backticks of the guides exists', () => {
  for (const document of ['README.md', 'CONTRIBUTING.md', 'docs/ARCHITECTURE.md', 'docs/THREAT-MODEL.md']) {
    const paths = /`((?:src|guest|scripts|test|docs|examples|bin)\/[\w./-]*\w\/?)[`#]/g;
    for (const [, path = ''] of read(document).matchAll(paths)) {
      // A pattern such as `guest/images/NAME.json` is no path.
      if (/[A-Z]{3,}\.json/.test(path)) continue;
      assert.ok(existsSync(join(root, path)), `${document} names ${path}`);
    }
  }
});

test('decisions are numbered without a gap, short, and say their number', () => {
  const files = globSync('docs/decisions/*.md', { cwd: root }).sort();
  files.forEach((file, index) => {
    const number = String(index + 1).padStart(4, '0');
    assert.ok(file.startsWith(`docs/decisions/${number}-`), `${file} is number ${number}`);
    const text = read(file);
    assert.ok(text.startsWith(`# ${number} `), file);
    assert.ok(text.trimEnd().split('\n').length <= 40, `${file} is short`);
    assert.match(text, /\*\*Decision\.\*\*/, file);
  });
});
