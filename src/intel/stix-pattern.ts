/**
 * The subset of STIX 2.1 patterning that says what one value is: comparisons with `=`, `IN` and `ISSUBSET` joined by
 * OR. Of conditions joined by AND only those about a file's hash are used, because a hash alone names the file; every
 * other AND, NOT, order or repetition needs more than one event to be true and is left out rather than read as more
 * than it says. Pure, bounded, and fuzzed (test/fuzz/targets/stix.ts).
 */
import { normalise } from './indicator.ts';
import type { IndicatorKind } from './indicator.ts';

export interface PatternValue {
  readonly kind: IndicatorKind;
  readonly value: string;
}

export type PatternParsed =
  | { readonly ok: true; readonly values: readonly PatternValue[]; readonly unsupported: readonly string[] }
  | { readonly ok: false; readonly problem: string };

/** UTF-16 units, tokens, nesting and values of one pattern: real ones have a handful. */
export const patternBounds = Object.freeze({ unitsMax: 32_768, tokensMax: 4096, depthMax: 32, valuesMax: 1024 });

interface Token {
  readonly type: 'word' | 'string' | 'sign';
  readonly text: string;
}

/** Alternatives of which each is enough, or why there are none. */
type Alternatives = readonly PatternValue[] | string;

class PatternError extends Error {}

export function parsePattern(pattern: string): PatternParsed {
  const parser = new Parser();
  try {
    if (pattern.length > patternBounds.unitsMax) throw new PatternError('it is too long');
    parser.read(tokensOf(pattern));
    const found = parser.observations(0);
    parser.expectEnd();
    const values = typeof found === 'string' ? [] : found;
    if (values.length > patternBounds.valuesMax) throw new PatternError('it has too many values');
    return { ok: true, values, unsupported: parser.unsupported };
  } catch (thrown) {
    if (thrown instanceof PatternError) return { ok: false, problem: thrown.message };
    throw thrown;
  }
}

const TOKEN = /\s+|('(?:[^'\\]|\\.)*')|([A-Za-z_][\w-]*)|(<=|>=|!=|[[\]().:,=<>*-])|(\d[\w.:-]*)/y;

function tokensOf(pattern: string): Token[] {
  const tokens: Token[] = [];
  TOKEN.lastIndex = 0;
  while (TOKEN.lastIndex < pattern.length) {
    const at = TOKEN.lastIndex;
    const match = TOKEN.exec(pattern);
    if (match === null) throw new PatternError(`unexpected character at ${at}`);
    if (tokens.length >= patternBounds.tokensMax) throw new PatternError('it has too many tokens');
    if (match[1] !== undefined) tokens.push({ type: 'string', text: match[1].slice(1, -1).replace(/\\(.)/g, '$1') });
    else if (match[2] !== undefined) tokens.push({ type: 'word', text: match[2] });
    else if (match[3] !== undefined) tokens.push({ type: 'sign', text: match[3] });
    else if (match[4] !== undefined) tokens.push({ type: 'word', text: match[4] });
  }
  return tokens;
}

class Parser {
  readonly unsupported: string[] = [];
  #tokens: readonly Token[] = [];
  #at = 0;

  read(tokens: readonly Token[]): void {
    this.#tokens = tokens;
  }

  /** observation (OR|AND|FOLLOWEDBY observation)*, each with qualifiers. */
  observations(depth: number): Alternatives {
    let left = this.#observation(depth);
    while (true) {
      if (this.#take('OR')) left = either(left, this.#observation(depth));
      else if (this.#take('AND') || this.#take('FOLLOWEDBY')) {
        this.#observation(depth);
        left = this.#leaveOut('several observations together');
      } else return left;
    }
  }

  expectEnd(): void {
    const token = this.#tokens[this.#at];
    if (token !== undefined) throw new PatternError(`unexpected ${token.text.slice(0, 40)}`);
  }

  #observation(depth: number): Alternatives {
    this.#bound(depth);
    let found: Alternatives;
    if (this.#take('[')) {
      found = this.#disjunction(depth + 1);
      this.#need(']');
    } else {
      this.#need('(');
      found = this.observations(depth + 1);
      this.#need(')');
    }
    while (true) {
      if (this.#take('WITHIN')) {
        this.#word();
        this.#need('SECONDS');
      } else if (this.#take('REPEATS')) {
        const times = this.#word();
        this.#need('TIMES');
        if (times !== '1') found = this.#leaveOut('REPEATS');
      } else if (this.#take('START')) {
        this.#instant();
        this.#need('STOP');
        this.#instant();
        found = this.#leaveOut('START … STOP');
      } else return found;
    }
  }

  #disjunction(depth: number): Alternatives {
    let left = this.#conjunction(depth);
    while (this.#take('OR')) left = either(left, this.#conjunction(depth));
    return left;
  }

  #conjunction(depth: number): Alternatives {
    const parts = [this.#comparison(depth)];
    while (this.#take('AND')) parts.push(this.#comparison(depth));
    const [first] = parts;
    if (parts.length === 1 && first !== undefined) return first;
    const hashes = parts.find(
      (part) => typeof part !== 'string' && part.length > 0 && part.every(({ kind }) => kind === 'hash'),
    );
    return hashes ?? this.#leaveOut('AND');
  }

  #comparison(depth: number): Alternatives {
    this.#bound(depth);
    if (this.#take('(')) {
      const found = this.#disjunction(depth + 1);
      this.#need(')');
      return found;
    }
    const path = this.#path();
    const not = this.#take('NOT');
    const operator = this.#next().text;
    const values = operator === 'IN' ? this.#set() : operator === 'EXISTS' ? [] : [this.#literal()];
    if (not || !['=', 'IN', 'ISSUBSET'].includes(operator)) return this.#leaveOut(not ? 'NOT' : operator);
    const kind = kindOf(path);
    if (kind === undefined) return this.#leaveOut(path);
    return values.flatMap((text) => {
      const value = normalise(kind, text);
      if (value === undefined) this.#leaveOut(`${path} = '${text.slice(0, 60)}'`);
      return value === undefined ? [] : [{ kind, value }];
    });
  }

  /** `file:hashes.'SHA-256'`, as `file:hashes.SHA-256`. */
  #path(): string {
    const object = this.#word();
    this.#need(':');
    let path = `${object.toLowerCase()}:${this.#segment()}`;
    while (true) {
      if (this.#take('.')) path += `.${this.#segment()}`;
      else if (this.#take('[')) {
        this.#next();
        this.#need(']');
        path += '[]';
      } else return path;
    }
  }

  #segment(): string {
    const token = this.#next();
    if (token.type === 'sign') throw new PatternError(`a name was expected, not ${token.text}`);
    return token.text;
  }

  #set(): string[] {
    this.#need('(');
    const values = [this.#literal()];
    while (this.#take(',')) values.push(this.#literal());
    this.#need(')');
    return values;
  }

  #literal(): string {
    this.#take('-');
    const token = this.#next();
    if (token.type === 'sign') throw new PatternError(`a value was expected, not ${token.text}`);
    const follows = this.#tokens[this.#at];
    // b'…', h'…' and t'…'
    if (token.type === 'word' && follows?.type === 'string' && /^[bht]$/.test(token.text)) return this.#next().text;
    return token.text;
  }

  #instant(): void {
    if (this.#tokens[this.#at]?.text === 't') this.#at += 1;
    this.#next();
  }

  #leaveOut(what: string): string {
    if (this.unsupported.length < 16 && !this.unsupported.includes(what)) this.unsupported.push(what);
    return what;
  }

  #bound(depth: number): void {
    if (depth > patternBounds.depthMax) throw new PatternError('it is nested too deeply');
  }

  #next(): Token {
    const token = this.#tokens[this.#at];
    if (token === undefined) throw new PatternError('it ends too early');
    this.#at += 1;
    return token;
  }

  #word(): string {
    const { type, text } = this.#next();
    if (type !== 'word') throw new PatternError(`a word was expected, not ${text.slice(0, 40)}`);
    return text;
  }

  #take(text: string): boolean {
    const token = this.#tokens[this.#at];
    if (token === undefined || token.type === 'string' || token.text !== text) return false;
    this.#at += 1;
    return true;
  }

  #need(text: string): void {
    if (!this.#take(text)) throw new PatternError(`${text} was expected`);
  }
}

/** Either is enough, so what one side cannot say does not take away the other. */
function either(left: Alternatives, right: Alternatives): Alternatives {
  if (typeof left === 'string') return right;
  return typeof right === 'string' ? left : [...left, ...right];
}

function kindOf(path: string): IndicatorKind | undefined {
  if (/^(file|artifact):hashes\./.test(path)) return 'hash';
  switch (path) {
    case 'ipv4-addr:value':
    case 'ipv6-addr:value':
    case 'network-traffic:src_ref.value':
    case 'network-traffic:dst_ref.value':
      return 'ip';
    case 'domain-name:value':
      return 'domain';
    case 'url:value':
      return 'url';
    case 'email-addr:value':
    case 'email-message:from_ref.value':
    case 'email-message:sender_ref.value':
      return 'email';
    default:
      return undefined;
  }
}
