/**
 * A reader for YAML documents that people write: every complaint has the line it is about. Aliases and tags are
 * refused, since neither has a use here and both have a history.
 */
import { isAlias, isMap, isNode, isScalar, isSeq, LineCounter, parseDocument } from 'yaml';
import type { Document, Node, Pair, YAMLMap } from 'yaml';
import { printableLine } from '../core/json.ts';
import { limits } from '../core/limits.ts';
import { suggest } from './cel/suggest.ts';
import type { RuleProblem } from './rule.ts';

export type { Node as YamlNode } from 'yaml';

export interface Entry {
  readonly key: string;
  readonly at: Node;
  readonly value: Node | null;
}

export class YamlReader {
  readonly problems: RuleProblem[] = [];
  readonly root: Node | null;
  #document: Document | undefined;
  readonly #file: string;
  readonly #lines = new LineCounter();

  constructor(file: string, bytes: Buffer) {
    this.#file = file;
    this.root = this.#parse(bytes);
  }

  #parse(bytes: Buffer): Node | null {
    if (bytes.length > limits.ruleFileBytesMax) {
      this.complain(null, `the file is larger than ${limits.ruleFileBytesMax} bytes`);
      return null;
    }
    try {
      const text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
      if ((text.match(/[\n[{]/g) ?? []).length > limits.ruleFileMarksMax) {
        this.complain(null, `the file has more than ${limits.ruleFileMarksMax} lines and brackets`);
        return null;
      }
      const document = parseDocument(text, {
        lineCounter: this.#lines,
        prettyErrors: false,
        uniqueKeys: false,
        version: '1.2',
      });
      for (const { pos, message } of [...document.errors, ...document.warnings].slice(0, limits.ruleProblemsMax)) {
        this.#push(this.#lines.linePos(pos[0]).line, 'error', `not valid YAML: ${printableLine(message, 200)}`);
      }
      this.#document = document;
      return this.problems.length > 0 ? null : document.contents;
    } catch (thrown) {
      const reason = thrown instanceof RangeError ? 'it nests too deeply' : (thrown as Error).message;
      this.complain(null, `not valid YAML: ${printableLine(reason, 200)}`);
      return null;
    }
  }

  lineOf(node: Node | null | undefined): number {
    const offset = node?.range?.[0];
    return offset === undefined ? 1 : this.#lines.linePos(offset).line;
  }

  complain(at: Node | null | undefined, message: string, severity: RuleProblem['severity'] = 'error'): void {
    this.#push(this.lineOf(at), severity, message);
  }

  #push(line: number, severity: RuleProblem['severity'], message: string): void {
    if (this.problems.length < limits.ruleProblemsMax)
      this.problems.push({ file: this.#file, line, severity, message });
  }

  /** Entries of a mapping; undefined after a complaint. With `known`, other keys are complained about and left out. */
  entries(node: Node | null | undefined, what: string, known?: readonly string[]): Entry[] | undefined {
    if (!this.#plain(node, what)) return undefined;
    if (!isMap(node)) {
      this.complain(node, `${what} must be a mapping (key: value)`);
      return undefined;
    }
    const entries: Entry[] = [];
    const seen = new Set<string>();
    for (const pair of (node as YAMLMap).items as Pair<Node, Node | null>[]) {
      const key = isScalar(pair.key) ? String(pair.key.value) : undefined;
      if (key === undefined) this.complain(pair.key, `a key of ${what} must be a text`);
      else if (known !== undefined && !known.includes(key)) {
        this.complain(pair.key, `${what} has no ${printableLine(key, 80)}${suggest(key.slice(0, 80), known)}`);
      } else if (seen.has(key)) this.complain(pair.key, `${what} has ${printableLine(key, 80)} twice`);
      else {
        seen.add(key);
        entries.push({ key, at: pair.key, value: pair.value });
      }
    }
    return entries;
  }

  items(node: Node | null | undefined, what: string): readonly Node[] {
    if (!this.#plain(node, what)) return [];
    if (isSeq(node)) return node.items as Node[];
    this.complain(node, `${what} must be a list (- item)`);
    return [];
  }

  text(node: Node | null | undefined, what: string, unitsMax: number = limits.ruleTextUnitsMax): string | undefined {
    const value = this.scalar(node, what);
    if (value === undefined) return undefined;
    if (typeof value !== 'string' || value.trim() === '') this.complain(node, `${what} must be a text`);
    else if (value.length > unitsMax) this.complain(node, `${what} is longer than ${unitsMax} characters`);
    else return value;
    return undefined;
  }

  /** undefined after a complaint. */
  scalar(node: Node | null | undefined, what: string): string | number | boolean | null | undefined {
    if (!this.#plain(node, what)) return undefined;
    if (isScalar(node)) {
      const { value } = node;
      if (value === null || ['string', 'number', 'boolean'].includes(typeof value))
        return value as string | number | boolean | null;
    }
    this.complain(node, `${what} must be a single value`);
    return undefined;
  }

  /** A whole value as JSON would have it. Aliases were refused by whoever asks; here they would throw. */
  plain(node: Node | null | undefined): unknown {
    try {
      return this.#document === undefined || !isNode(node) ? null : node.toJS(this.#document, { maxAliasCount: 0 });
    } catch {
      this.complain(node, 'the value cannot be read');
      return null;
    }
  }

  #plain(node: Node | null | undefined, what: string): boolean {
    if (node === null || node === undefined) {
      this.complain(node, `${what} is missing`);
      return false;
    }
    if (!isAlias(node) && node.tag === undefined) return true;
    if (!isAlias(node) && node.tag?.startsWith('tag:yaml.org,2002:') === true) return true;
    this.complain(node, `${what} must be written out: aliases and tags are not read`);
    return false;
  }
}
