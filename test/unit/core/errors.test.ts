/**
 * Goal: the table of codes, its documentation and the code that raises them can not drift apart.
 * Method: docs/ERRORS.md is parsed by itself and compared with the table in both directions; every code that any source
 * of host or guest mentions must be in the table, and every code of the table must be raised somewhere.
 */
import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { asMayflyError, errorTable, exitCodes, MayflyError } from '../../../src/core/errors.ts';
import { errorsDocPath, renderErrorsDoc } from '../../../scripts/errors-doc.ts';

const root = join(import.meta.dirname, '../../..');
/** A whole code; a family such as `E_TEMPLATE_*` is none. */
const MENTIONED = /(?<![A-Z0-9_])E_[A-Z0-9_]*[A-Z0-9](?![A-Z0-9_*])/g;
/** A code as a value, not in a comment. */
const RAISED = /(?<=')E_[A-Z0-9_]+(?=')/g;

const codes = Object.keys(errorTable);

/** Codes, each with a file that has it. */
function codesIn(files: string, form: RegExp): Map<string, string> {
  const found = new Map<string, string>();
  for (const file of globSync(files, { cwd: root })) {
    if (file === 'src/core/errors.ts') continue;
    for (const [code] of readFileSync(join(root, file), 'utf8').matchAll(form)) found.set(code, file);
  }
  return found;
}

/** Rows of the tables of codes, as cells. */
function documentedRows(): string[][] {
  return readFileSync(errorsDocPath, 'utf8')
    .split('\n')
    .filter((line) => line.startsWith('| `E_'))
    .map((line) => line.slice(2, -2).split(/(?<!\\) \| /).map((cell) => cell.replaceAll('\\|', '|')));
}

test('docs/ERRORS.md is what `node scripts/errors-doc.ts` writes', () => {
  assert.equal(readFileSync(errorsDocPath, 'utf8'), renderErrorsDoc());
});

test('docs/ERRORS.md has exactly the codes of the table, with the same meanings', () => {
  const rows = documentedRows();
  const documented = Object.fromEntries(rows.map(([code = '', ...meaning]) => [code.replaceAll('`', ''), meaning]));
  const expected = Object.fromEntries(
    Object.entries(errorTable).map(([code, { title, blame, retryable, exit, remedy }]) => {
      return [code, [title, blame, retryable ? 'yes' : 'no', String(exit), remedy]];
    }),
  );
  assert.deepEqual(documented, expected);
  assert.equal(rows.length, codes.length, 'no code twice');
});

test('docs/ERRORS.md lists every exit code, each once', () => {
  const listed = [...readFileSync(errorsDocPath, 'utf8').matchAll(/^\| (\d+) \| /gm)].map(([, exit]) => Number(exit));
  assert.deepEqual(listed, Object.values(exitCodes));
  assert.equal(new Set(listed).size, listed.length);
});

test('every code that a source or a document mentions is in the table', () => {
  const files = '{src,scripts,guest,docs,bin}/**/*.{ts,mjs,c,h,py,md}';
  const unknown = [...codesIn(files, MENTIONED)].filter(([code]) => !codes.includes(code));
  assert.deepEqual(unknown, []);
});

test('every code of the table is raised by something', () => {
  // `asMayflyError`, beside the table, raises this one.
  const raised = codesIn('{src,scripts}/**/*.ts', RAISED).set('E_INTERNAL', 'src/core/errors.ts');
  assert.deepEqual(codes.filter((code) => !raised.has(code)), []);
});

test('titles and remedies are sentences for people', () => {
  for (const [code, { title, remedy }] of Object.entries(errorTable)) {
    assert.match(title, /^\S.*[^.]$/, `${code}: a title has no full stop`);
    assert.match(remedy, /^[A-Z].*\.$/, `${code}: a remedy is a sentence`);
    assert.ok(title.length <= 90, `${code}: a title fits on a line`);
  }
});

test('an error has the meaning of its code, and its own remedy where it knows better', () => {
  const plain = new MayflyError('E_FUNCTION_TIMEOUT', 'late');
  const { stage, blame, retryable, remedy } = errorTable.E_FUNCTION_TIMEOUT;
  assert.deepEqual(
    { code: plain.code, stage: plain.stage, blame: plain.blame, retryable: plain.retryable, remedy: plain.remedy },
    { code: 'E_FUNCTION_TIMEOUT', stage, blame, retryable, remedy },
  );
  assert.equal(plain.detail, undefined);
  const cause = new Error('why');
  const special = new MayflyError('E_USAGE', 'no', { remedy: 'Do this.', detail: 'there', cause });
  assert.deepEqual([special.remedy, special.detail, special.cause], ['Do this.', 'there', cause]);
});

test('whatever is thrown becomes a MayflyError; what was not one is a bug', () => {
  const own = new MayflyError('E_USAGE', 'as it is');
  assert.equal(asMayflyError(own), own);
  const error = new TypeError('x is not a function');
  const wrapped = asMayflyError(error);
  assert.deepEqual([wrapped.code, wrapped.message, wrapped.cause], ['E_INTERNAL', error.message, error]);
  assert.match(wrapped.detail ?? '', /TypeError: x is not a function/);
  for (const thrown of ['text', undefined, null, 7, { an: 'object' }]) {
    assert.equal(asMayflyError(thrown).code, 'E_INTERNAL');
    assert.equal(asMayflyError(thrown).detail, undefined);
  }
});
