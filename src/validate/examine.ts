/**
 * The second look at an output that is one: whether it keeps its contract. The cheap checks come first, and the first
 * that fails withholds the output; what is only worth knowing becomes a note of the verdict. Whatever goes wrong in a
 * check withholds as well: an output is given out because it was examined, never because nobody could.
 */
import { fileTypeFromBuffer } from 'file-type';
import { asMayflyError } from '../core/errors.ts';
import { digestOf, parseStrict, printableLine } from '../core/json.ts';
import { limits } from '../core/limits.ts';
import type { ExaminedOutput, OutputContract } from './contract.ts';
import { neutralise } from './neutral.ts';
import type { Validation } from './output.ts';
import { findCredentials, findSecrets, textsOf } from './secrets.ts';
import { accepted, withheld } from './verdict.ts';
import type { FailedVerdict, Note } from './verdict.ts';

interface Examination {
  readonly output: ExaminedOutput;
  readonly contract: OutputContract;
  readonly notes: Note[];
}

type Check = (examination: Examination) => FailedVerdict | undefined | Promise<FailedVerdict | undefined>;

const CHECKS: readonly Check[] = [
  checkNumbers, checkType, checkSchema, checkSecrets, checkCredentials, checkIndicators, checkValidator,
];

/** `raw`: the output is any bytes, otherwise JSON. Never rejects. */
export async function examineOutput(
  validation: Validation,
  contract: OutputContract,
  raw: boolean,
): Promise<Validation> {
  const { output: bytes } = validation;
  if (validation.verdict.kind !== 'accepted' || bytes === undefined) return validation;
  const notes: Note[] = [];
  const refuse = (verdict: FailedVerdict): Validation => ({
    ...validation, verdict, output: undefined, withheld: bytes,
  });
  try {
    const value: unknown = raw ? undefined : JSON.parse(bytes.toString('utf8'));
    const output = { bytes, value, type: raw ? await typeOf(bytes) : 'application/json' };
    for (const check of CHECKS) {
      const verdict = await check({ output, contract, notes });
      if (verdict !== undefined) return refuse(verdict);
    }
    const given = harmless({ output, contract, notes }, raw);
    if (typeof given === 'string') return refuse(withheld('E_OUTPUT_TYPE', given));
    return { ...validation, output: given, verdict: notes.length === 0 ? accepted : { kind: 'accepted', notes } };
  } catch (thrown) {
    const { message } = asMayflyError(thrown);
    return refuse(withheld('E_OUTPUT_INVALID', `The result could not be examined: ${printableLine(message, 200)}`));
  }
}

/** Numbers that JSON can write and no double can hold, and keys that some readers take for more than data. */
function checkNumbers({ output, notes }: Examination): FailedVerdict | undefined {
  const open: unknown[] = [output.value];
  let special: string | undefined;
  for (let item = open.pop(); item !== undefined; item = open.pop()) {
    if (item === Number.POSITIVE_INFINITY || item === Number.NEGATIVE_INFINITY) {
      return withheld('E_OUTPUT_INVALID', 'The result has a number that is too large for its readers, as in 1e400.');
    }
    if (typeof item !== 'object' || item === null) continue;
    for (const [key, value] of Object.entries(item)) {
      if (key === '__proto__' || key === 'constructor' || key === 'prototype') special = key;
      if (value !== null) open.push(value);
    }
  }
  if (special !== undefined) notes.push({ check: 'key', what: `the result has a key ${special}` });
  return undefined;
}

function checkType({ output, contract: { types, declaredType } }: Examination): FailedVerdict | undefined {
  const { type } = output;
  if (types !== undefined && !types.some((allowed) => fits(type, allowed))) {
    return withheld('E_OUTPUT_TYPE', `The output is ${type}, and only ${types.join(', ')} may come out.`);
  }
  if (declaredType !== undefined && !fits(type, declaredType) && !(isText(declaredType) && isText(type))) {
    return withheld('E_OUTPUT_TYPE', `The output is said to be ${declaredType}, and is ${type}.`);
  }
  return undefined;
}

async function checkSchema({ output, contract: { schema } }: Examination): Promise<FailedVerdict | undefined> {
  if (schema === undefined) return undefined;
  const problem = await schema.check(output.bytes.toString('utf8'));
  return problem === undefined ? undefined : withheld('E_OUTPUT_SCHEMA', `The result breaks its schema: ${problem}.`);
}

function checkSecrets({ output, contract }: Examination): FailedVerdict | undefined {
  const { secrets = new Map<string, string>(), canaries = [] } = contract;
  if (secrets.size === 0 && canaries.length === 0) return undefined;
  const haystacks = [output.bytes];
  if (output.value !== undefined) haystacks.push(Buffer.from(textsOf(output.value)));
  const hidden = new Map(canaries.map((canary, at) => [`canary ${at + 1}`, canary]));
  const leaks = [...findSecrets(haystacks, secrets), ...findSecrets(haystacks, hidden)];
  if (leaks.length === 0) return undefined;
  const listed = leaks.slice(0, 5).map(({ name, how }) => `${printableLine(name, 60)} (${how})`);
  return withheld('E_OUTPUT_SECRET', `The result has in it what must not leave: ${listed.join(', ')}.`);
}

function checkCredentials({ output, contract, notes }: Examination): FailedVerdict | undefined {
  const text = output.value === undefined ? output.bytes.toString('latin1') : textsOf(output.value);
  const kinds = findCredentials(text);
  if (kinds.length === 0) return undefined;
  if (contract.credentials === 'withhold') {
    return withheld('E_OUTPUT_SECRET', `The result has in it what looks like a credential: ${kinds.join(', ')}.`);
  }
  notes.push(...kinds.map((kind): Note => ({ check: 'credential', what: `looks like a credential: ${kind}` })));
  return undefined;
}

async function checkIndicators({ output, contract: { indicators } }: Examination): Promise<FailedVerdict | undefined> {
  const found = (await indicators?.(output)) ?? [];
  if (found.length === 0) return undefined;
  const listed = found.slice(0, 5).map((line) => printableLine(line, 200));
  const more = found.length > listed.length ? `, and ${found.length - listed.length} more` : '';
  return withheld('E_OUTPUT_INDICATOR', `The result has in it what threat feeds list: ${listed.join('; ')}${more}.`);
}

async function checkValidator({ output, contract: { validator } }: Examination): Promise<FailedVerdict | undefined> {
  if (validator === undefined) return undefined;
  let answer: { readonly accept: boolean; readonly reason: string };
  try {
    answer = await validator(output);
  } catch (thrown) {
    const { code, message } = asMayflyError(thrown);
    return withheld('E_OUTPUT_REJECTED', `The validator gave no answer: ${code}, ${printableLine(message, 300)}`);
  }
  if (answer.accept) return undefined;
  const reason = printableLine(answer.reason, limits.errorMessageUnits) || 'it gave no reason';
  return withheld('E_OUTPUT_REJECTED', `The validator refused the result: ${reason}`);
}

/** The output as it is given out; a sentence when it cannot be made harmless. */
function harmless({ output, contract, notes }: Examination, raw: boolean): Buffer | string {
  const { neutralise: audiences = [] } = contract;
  if (audiences.length === 0) return output.bytes;
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(output.bytes);
  } catch {
    return 'The output is no text, so it cannot be made harmless for who shows texts.';
  }
  const safe = Buffer.from(neutralise(text, raw ? 'text' : 'json', audiences));
  // Two keys can become one.
  if (!raw && !parseStrict(safe, { bytesMax: safe.length, depthMax: limits.outputDepthMax }).ok) {
    return 'The output has keys that cannot be made harmless.';
  }
  if (!safe.equals(output.bytes)) {
    notes.push({ check: 'neutralised', what: `${audiences.join(', ')}; given out as ${digestOf(safe)}` });
  }
  return safe;
}

function fits(type: string, allowed: string): boolean {
  return allowed.endsWith('/*') ? type.startsWith(allowed.slice(0, -1)) : type === allowed;
}

function isText(type: string): boolean {
  return /^text\/|^application\/(json|xml|.+\+json|.+\+xml)$/.test(type);
}

/** By the first bytes; text that is nothing else is `text/plain`, or `text/html` when a browser would take it so. */
async function typeOf(bytes: Buffer): Promise<string> {
  const head = bytes.subarray(0, limits.sniffBytes);
  const known = await fileTypeFromBuffer(head).catch(() => undefined);
  if (known !== undefined) return known.mime.replace(/;.*/, '');
  const text = head.toString('latin1');
  if (/[\u0000-\u0008\u000e-\u001a\u001c-\u001f]/.test(text)) return 'application/octet-stream';
  if (/<(?:!doctype html|html|head|body|script|iframe|svg|img|object|embed)[\s>/]/i.test(text)) return 'text/html';
  return 'text/plain';
}
