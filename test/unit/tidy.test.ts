/**
 * Goal: the habits of CONTRIBUTING.md hold without anybody remembering them.
 * Method: every text file of the tree is read, tracked or new; a rule gives back the places that break it, and a second
 * test plants one violation of each rule, because a pattern that matches nothing looks like a tidy tree. What biome
 * knows already (no `any`, no default export) is left to it.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

const root = join(import.meta.dirname, '../..');
const LINES_MAX = 400;
const COLUMNS_MAX = 120;

interface Source {
  readonly path: string;
  readonly text: string;
}

interface Rule {
  readonly name: string;
  readonly applies: (path: string) => boolean;
  /** Places that break it, as `path:line: text`. */
  readonly places: (source: Source) => readonly string[];
  /** A file that breaks it. */
  readonly planted: Source;
}

const isCode = (path: string): boolean => /\.(ts|mjs|cjs|c|h|py|sh)$|^bin\/|^\.ci\//.test(path);
const isProduct = (path: string): boolean => /^src\/.*\.ts$/.test(path);
const isTest = (path: string): boolean => /^test\/.*\.ts$/.test(path);
const isOther = (path: string): boolean => path !== 'test/unit/tidy.test.ts';

/** Lines that match, as places. */
function lines(pattern: RegExp): Rule['places'] {
  return ({ path, text }) =>
    text.split('\n').flatMap((line, index) => {
      return pattern.test(line) ? [`${path}:${index + 1}: ${line.trim().slice(0, 100)}`] : [];
    });
}

const rules: readonly Rule[] = [
  {
    name: 'files can be read in one sitting',
    applies: isCode,
    places: ({ path, text }) => {
      const count = text.split('\n').length - 1;
      return count > LINES_MAX ? [`${path}: ${count} lines`] : [];
    },
    planted: { path: 'scripts/a.ts', text: 'let a = 1;\n'.repeat(LINES_MAX + 1) },
  },
  {
    name: 'lines fit beside each other',
    // The benchmarks still have lines of up to 130.
    applies: (path) => isCode(path) && !path.startsWith('test/perf/'),
    places: lines(new RegExp(`^.{${COLUMNS_MAX + 1},}$`)),
    planted: { path: 'guest/agent/a.c', text: 'x'.repeat(COLUMNS_MAX + 1) },
  },
  {
    name: 'every module of the product says first why it exists',
    applies: isProduct,
    places: ({ path, text }) => (text.startsWith('/**') ? [] : [path]),
    planted: { path: 'src/core/a.ts', text: "import assert from 'node:assert';\n" },
  },
  {
    name: 'only main.ts touches the environment, the wall clock, exit and chance',
    applies: (path) => isProduct(path) && path !== 'src/main.ts',
    places: lines(/process\.env\b|Date\.now\(|new Date\(\)|process\.exit|(?<!')Math\.random\(/),
    planted: { path: 'src/core/a.ts', text: 'const now = Date.now();' },
  },
  {
    name: 'no shell',
    applies: isProduct,
    // `db.exec` is SQLite's.
    places: lines(/\bexecSync\(|(?<!\bdb\.)\bexec\(['"`]|shell: true/),
    planted: { path: 'src/core/a.ts', text: "spawn('ls', { shell: true });" },
  },
  {
    name: 'output leaves through the command line only',
    applies: isProduct,
    places: lines(/\bconsole\.(log|error|warn|info|debug|trace)\(/),
    planted: { path: 'src/core/a.ts', text: "console.log('here');" },
  },
  {
    name: 'nothing is marked as unfinished',
    applies: (path) => isCode(path) && isOther(path),
    places: lines(/\b(TODO|FIXME|XXX)\b/),
    planted: { path: 'guest/agent/a.c', text: '/* FIXME */' },
  },
  {
    name: 'no test is switched off without a reason',
    applies: (path) => isTest(path) && isOther(path),
    places: lines(/\b(test|it|describe|suite)\.(only|todo|skip)\(|\.(skip|todo)\(\)|\b(skip|only|todo): true\b/),
    planted: { path: 'test/unit/a.test.ts', text: "test('x', { skip: true }, () => {});" },
  },
  {
    name: 'nothing names a place of one machine',
    applies: isOther,
    // A path that begins where a word or another path cannot: `/proc/1/root/` is no place of this machine.
    places: lines(/(^|[\s'"`(=:])\/(work|farm|root)\//),
    planted: { path: 'docs/a.md', text: 'see `/root/notes`' },
  },
  {
    name: 'nothing names a package registry',
    applies: isOther,
    places: lines(/\b(npmjs|npmmirror|yarnpkg|debian|ubuntu|pypi|pythonhosted|docker|crates)\.(org|com|io|net)\b/),
    planted: { path: 'package-lock.json', text: '"resolved": "https://registry.npmjs.org/x"' },
  },
];

/** Tracked files, and new ones that git does not ignore. */
const listing = execFileSync('git', ['ls-files', '-z', '-co', '--exclude-standard'], { cwd: root, encoding: 'utf8' });
const sources: readonly Source[] = listing
  .split('\0')
  .filter((path) => path !== '' && path !== 'LICENSE' && !path.startsWith('test/golden/frames/'))
  .filter((path) => existsSync(join(root, path)))
  .map((path) => ({ path, text: readFileSync(join(root, path), 'utf8') }));

test('there is something to check', () => {
  assert.ok(sources.filter(({ path }) => isProduct(path)).length > 40);
});

for (const { name, applies, places, planted } of rules) {
  test(name, () => {
    assert.deepEqual(sources.filter(({ path }) => applies(path)).flatMap(places), []);
  });

  test(`${name}: a violation is found`, () => {
    assert.ok(applies(planted.path));
    assert.equal(places(planted).length, 1);
  });
}
