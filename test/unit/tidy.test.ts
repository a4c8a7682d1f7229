/** Goal: the habits of CONTRIBUTING.md hold without anybody remembering them. Method: read every file of the tree. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

const root = join(import.meta.dirname, '../..');
const LINES_MAX = 400;
const COLUMNS_MAX = 130;

interface Source {
  readonly path: string;
  readonly text: string;
  readonly lines: readonly string[];
}

/** Tracked files, and new ones that git does not ignore. */
const listing = execFileSync('git', ['ls-files', '-z', '-co', '--exclude-standard'], { cwd: root, encoding: 'utf8' });
const sources: readonly Source[] = listing
  .split('\0')
  .filter((path) => /\.(ts|mjs|c|h|py|sh|json|md)$|^bin\/|^\.ci\//.test(path) && path !== 'package-lock.json')
  .filter((path) => !path.startsWith('test/golden/frames/'))
  .map((path) => {
    const text = readFileSync(join(root, path), 'utf8');
    return { path, text, lines: text.split('\n') };
  });
const code = sources.filter(({ path }) => /\.(ts|mjs|c|h|py)$/.test(path));
const product = code.filter(({ path }) => path.startsWith('src/'));

/** Places as `file:line: text`, for rules about single lines. */
function places(files: readonly Source[], pattern: RegExp): string[] {
  return files.flatMap(({ path, lines }) =>
    lines.flatMap((line, index) => (pattern.test(line) ? [`${path}:${index + 1}: ${line.trim().slice(0, 100)}`] : [])),
  );
}

test('there is something to check', () => {
  assert.ok(product.length > 40, `only ${product.length} files found below src/`);
});

test('files can be read in one sitting', () => {
  const long = code.filter(({ lines }) => lines.length - 1 > LINES_MAX).map(({ path, lines }) => `${path}: ${lines.length - 1}`);
  assert.deepEqual(long, []);
  const wide = places(code, new RegExp(`^.{${COLUMNS_MAX + 1},}$`));
  assert.deepEqual(wide, []);
});

test('every module of the product says first why it exists', () => {
  assert.deepEqual(product.filter(({ text }) => !text.startsWith('/**')).map(({ path }) => path), []);
});

test('only main.ts touches the environment, the wall clock, exit and chance', () => {
  const inner = product.filter(({ path }) => path !== 'src/main.ts');
  assert.deepEqual(places(inner, /process\.env\b|Date\.now\(|new Date\(\)|process\.exit|Math\.random\(/), []);
});

test('no shell, no default export, no stray output', () => {
  assert.deepEqual(places(product, /\bexecSync\(|\bexec\('|shell: true/), []);
  assert.deepEqual(places(product, /^export default|\bconsole\./), []);
});

test('nothing is marked as unfinished, and no test is switched off without a reason', () => {
  const others = code.filter(({ path }) => path !== 'test/unit/tidy.test.ts');
  assert.deepEqual(places(others, /\b(TODO|FIXME|XXX)\b/), []);
  assert.deepEqual(places(others, /\b(test|it|describe)\.(only|todo|skip)\(|\.skip\(\)/), []);
});

test('nothing names a place of one machine or a package registry', () => {
  const others = sources.filter(({ path }) => path !== 'test/unit/tidy.test.ts');
  // A path that begins where a word or another path cannot: `/proc/1/root/` is no place of this machine.
  assert.deepEqual(places(others, /(^|[\s'"`(=:])\/(work|farm|root)\//), []);
  assert.deepEqual(places(others, /registry\.npmjs|deb\.debian\.org|security\.debian\.org|npmmirror/), []);
});
