/** From the bytes of rule files to a RuleSet, or to everything that is wrong with them, each with its file and line. */
import { isMap, isSeq } from 'yaml';
import { MayflyError } from '../core/errors.ts';
import { printableLine } from '../core/json.ts';
import { limits } from '../core/limits.ts';
import type { NetworkRule } from '../profile/network.ts';
import { fieldNames, fieldOrders } from '../profile/order.ts';
import type { FieldName, FieldOrder, FieldValue, Wish } from '../profile/order.ts';
import { compileExpression } from './cel/compile.ts';
import type { Expression, Schema } from './cel/compile.ts';
import { CelProblem } from './cel/node.ts';
import { suggest } from './cel/suggest.ts';
import { BOOL, DOUBLE, DYN, listOf, STRING } from './cel/type.ts';
import type { CelType } from './cel/type.ts';
import { findConflicts } from './conflicts.ts';
import { parseDestination } from './destinations.ts';
import { contextSchema } from './context.ts';
import { makeRuleSet } from './rule.ts';
import type { Effects, Rule, RuleProblem, RuleSet } from './rule.ts';
import { parseFieldValue } from './units.ts';
import { YamlReader } from './yaml.ts';
import type { Entry, YamlNode } from './yaml.ts';

export interface RuleFile {
  /** As it is shown in messages. */
  readonly name: string;
  readonly bytes: Buffer;
}

export interface LoadedRules {
  /** Undefined when a problem is an error. */
  readonly rules: RuleSet | undefined;
  readonly problems: readonly RuleProblem[];
}

/** Pure, bounded, and never throws: rule files are parsed here whoever wrote them. */
export function loadRules(files: readonly RuleFile[]): LoadedRules {
  const problems: RuleProblem[] = [];
  const rules: Rule[] = [];
  for (const file of files) {
    const reader = new FileReader(file);
    rules.push(...reader.read());
    problems.push(...reader.yaml.problems);
  }
  problems.push(...findDuplicates(rules));
  if (rules.length > limits.rulesMax) {
    const { file, line } = (rules[limits.rulesMax] as Rule).place;
    problems.push({ file, line, severity: 'error', message: `there are more than ${limits.rulesMax} rules` });
  } else problems.push(...findConflicts(rules));
  const places = rules.reduce((sum, { effects }) => sum + (effects.destinations?.length ?? 0), 0);
  if (places > limits.networkRulesMax && rules[0] !== undefined) {
    const message = `all rules together name more than ${limits.networkRulesMax} destinations`;
    problems.push({ ...rules[0].place, severity: 'error', message });
  }
  const usable = problems.every(({ severity }) => severity !== 'error');
  return { rules: usable ? makeRuleSet(rules) : undefined, problems };
}

/** Throws E_RULES_INVALID. */
export function requireRules({ rules, problems }: LoadedRules): RuleSet {
  if (rules !== undefined) return rules;
  const lines = problems.filter(({ severity }) => severity === 'error').map(showProblem);
  throw new MayflyError('E_RULES_INVALID', lines[0] ?? 'there are no rules', { detail: lines.slice(1).join('\n') });
}

export function showProblem({ file, line, message }: RuleProblem): string {
  return `${file}:${line}: ${message}`;
}

function findDuplicates(rules: readonly Rule[]): RuleProblem[] {
  const known = new Map<string, Rule>();
  const problems: RuleProblem[] = [];
  for (const rule of rules) {
    const first = known.get(rule.name);
    if (first === undefined) known.set(rule.name, rule);
    else {
      const message = `the name ${rule.name} is taken by ${first.place.file}:${first.place.line}`;
      problems.push({ ...rule.place, severity: 'error', message });
    }
  }
  return problems;
}

const NAME = /^[a-z0-9][a-z0-9-]{0,63}$/;

class FileReader {
  readonly yaml: YamlReader;
  readonly #name: string;

  constructor({ name, bytes }: RuleFile) {
    this.#name = name;
    this.yaml = new YamlReader(name, bytes);
  }

  read(): Rule[] {
    const { yaml } = this;
    if (yaml.problems.length > 0) return [];
    const entries = yaml.entries(yaml.root, 'a rule file', ['rulesVersion', 'data', 'rules', 'tests']);
    if (entries === undefined) return [];
    const find = (key: string): Entry | undefined => entries.find((entry) => entry.key === key);
    const version = find('rulesVersion');
    if (version === undefined) yaml.complain(yaml.root, 'rulesVersion is missing; this is version 1');
    else if (yaml.scalar(version.value, 'rulesVersion') !== 1) yaml.complain(version.at, 'rulesVersion must be 1');
    const data = find('data');
    const schema = contextSchema(data === undefined ? DYN : this.#type(data.value, 'data', 0));
    const list = find('rules');
    return list === undefined ? [] : yaml.items(list.value, 'rules').flatMap((node) => this.#rule(node, schema) ?? []);
  }

  /** `string`, `number`, `bool`, `any`, `[TYPE]` or a mapping of names to types. */
  #type(node: YamlNode | null, what: string, depth: number): CelType {
    const { yaml } = this;
    if (depth > 8) {
      yaml.complain(node, `${what} is declared deeper than 8 levels`);
      return DYN;
    }
    if (isSeq(node) && node.items.length === 1) {
      return listOf(this.#type(node.items[0] as YamlNode, `an element of ${what}`, depth + 1));
    }
    if (isMap(node)) {
      const fields = (yaml.entries(node, what) ?? []).map(({ key, value }) => [
        key,
        this.#type(value, `${what}.${key}`, depth + 1),
      ]);
      return { kind: 'object', name: `event.${what}`, fields: Object.fromEntries(fields) as Record<string, CelType> };
    }
    const name = yaml.scalar(node, what);
    const known = new Map<unknown, CelType>([
      ['string', STRING],
      ['number', DOUBLE],
      ['bool', BOOL],
      ['any', DYN],
    ]);
    const type = known.get(name);
    if (type === undefined && name !== undefined)
      yaml.complain(node, `${what} must be string, number, bool, any, [type] or a mapping`);
    return type ?? DYN;
  }

  #rule(node: YamlNode, schema: Schema): Rule | undefined {
    const { yaml } = this;
    const before = yaml.problems.length;
    const entries = yaml.entries(node, 'a rule', ['name', 'about', 'when', 'then']);
    if (entries === undefined) return undefined;
    const nodeOf = (key: string): YamlNode | null | undefined => {
      const entry = entries.find((each) => each.key === key);
      if (entry === undefined) yaml.complain(node, `a rule needs ${key}`);
      return entry?.value;
    };
    const nameNode = nodeOf('name');
    const name = nameNode === undefined ? undefined : yaml.text(nameNode, 'name');
    if (name !== undefined && !NAME.test(name))
      yaml.complain(nameNode, 'a name has lower-case letters, digits and dashes, at most 64');
    const about = entries.find(({ key }) => key === 'about');
    if (about !== undefined) yaml.text(about.value, 'about');
    const [whenNode, thenNode] = [nodeOf('when'), nodeOf('then')];
    const when = whenNode === undefined ? undefined : this.#when(whenNode, schema);
    const effects = thenNode === undefined ? undefined : this.#effects(thenNode);
    if (yaml.problems.length > before || name === undefined || when === undefined || effects === undefined)
      return undefined;
    this.#checkSense(whenNode, when.condition, effects);
    const rule = { name, place: { file: this.#name, line: yaml.lineOf(node) }, ...when, effects };
    return yaml.problems.length > before ? undefined : rule;
  }

  #when(node: YamlNode | null, schema: Schema): Pick<Rule, 'when' | 'condition'> | undefined {
    const value = node === null ? undefined : this.yaml.scalar(node, 'when');
    const text = typeof value === 'boolean' ? String(value) : value;
    if (typeof text !== 'string' || text.trim() === '') {
      this.yaml.complain(node, 'when must be an expression; `when: true` for every event');
      return undefined;
    }
    try {
      return { when: text.trim(), condition: compileExpression(text.trim(), schema) };
    } catch (thrown) {
      if (!(thrown instanceof CelProblem)) throw thrown;
      const at =
        thrown.offset === undefined
          ? ''
          : ` (at ${JSON.stringify(printableLine(text.trim().slice(thrown.offset), 30))})`;
      this.yaml.complain(node, `when: ${printableLine(thrown.message, 300)}${at}`);
      return undefined;
    }
  }

  /** More threat must never give more: see cel/threat.ts. */
  #checkSense(at: YamlNode | null | undefined, { threat }: Expression, effects: Effects): void {
    const { wishes, score, reject, image, destinations = [] } = effects;
    const permits =
      wishes.some(({ effect }) => effect === 'permit') || destinations.some(({ action }) => action === 'allow');
    const restricts =
      [score, reject, image].some((effect) => effect !== undefined) ||
      wishes.some(({ effect }) => effect === 'restrict') ||
      destinations.some(({ action }) => action === 'deny');
    if (threat === 'mixed') {
      this.yaml.complain(
        at,
        'when: it is not clear that this stays true, or stays false, as the threat grows; ' +
          'compare score with <, <=, > or >=, level with a range of levels, and use indicators with exists or size',
      );
    } else if (permits && threat === 'up') {
      this.yaml.complain(
        at,
        'when: this becomes true as the threat grows, and then permits more; ' +
          'a rule that raises something may only become false as it grows',
      );
    } else if (restricts && threat === 'down') {
      this.yaml.complain(
        at,
        'when: this becomes false as the threat grows, and its restrictions would fall away; ' +
          'a rule that restricts, rejects, chooses an image or adds score may only become true as it grows',
      );
    }
  }

  #effects(node: YamlNode | null): Effects | undefined {
    const { yaml } = this;
    const known = ['raise', 'lower', 'require', 'score', 'reject', 'image', 'allow', 'deny', 'forensics'];
    const entries = yaml.entries(node, 'then', known);
    if (entries === undefined) return undefined;
    if (entries.length === 0) yaml.complain(node, 'then has no effect');
    const wishes: Omit<Wish, 'by'>[] = [];
    const destinations: NetworkRule[] = [];
    let [score, reject]: [number | undefined, string | undefined] = [undefined, undefined];
    let image: string | undefined;
    for (const { key, value } of entries) {
      if (key === 'score') score = this.#score(value);
      else if (key === 'allow' || key === 'deny') destinations.push(...this.#destinations(key, value));
      else if (key === 'forensics') wishes.push(...this.#forensics(value));
      else if (key === 'reject') reject = yaml.text(value, 'then.reject');
      else if (key === 'image') image = this.#image(value);
      else wishes.push(...this.#wishes(key as 'raise' | 'lower' | 'require', value));
    }
    this.#checkOwn(node, wishes);
    return {
      wishes,
      ...(destinations.length === 0 ? {} : { destinations }),
      ...(score === undefined ? {} : { score }),
      ...(reject === undefined ? {} : { reject }),
      ...(image === undefined ? {} : { image }),
    };
  }

  #image(node: YamlNode | null): string | undefined {
    const name = this.yaml.text(node, 'then.image');
    if (name !== undefined && !NAME.test(name)) {
      this.yaml.complain(node, 'then.image must be the name of an image, without a tag');
      return undefined;
    }
    return name;
  }

  #score(node: YamlNode | null): number | undefined {
    const value = this.yaml.scalar(node, 'then.score');
    if (typeof value === 'number' && Number.isInteger(value) && value >= 1 && value <= 100) return value;
    if (value !== undefined)
      this.yaml.complain(node, 'then.score must be a whole number from 1 to 100: a rule adds to the score');
    return undefined;
  }

  #destinations(action: 'allow' | 'deny', node: YamlNode | null): NetworkRule[] {
    const items = this.yaml.items(node, `then.${action}`);
    return items.slice(0, limits.networkRulesMax).flatMap((item) => {
      const rule = parseDestination(action, this.yaml.plain(item));
      if (!('problem' in rule)) return [rule];
      this.yaml.complain(item, `then.${action}: ${rule.problem}`);
      return [];
    });
  }

  /** Short for requiring `forensics.capture`. */
  #forensics(node: YamlNode | null): Omit<Wish, 'by'>[] {
    const field = 'forensics.capture';
    const value = this.#value(field, node);
    return value === undefined ? [] : [{ field, effect: 'restrict', value }];
  }

  #wishes(verb: 'raise' | 'lower' | 'require', node: YamlNode | null): Omit<Wish, 'by'>[] {
    const entries = this.yaml.entries(node, `then.${verb}`) ?? [];
    return entries.flatMap(({ key, at, value }) => {
      const order: FieldOrder | undefined = Object.hasOwn(fieldOrders, key) ? fieldOrders[key as FieldName] : undefined;
      if (order === undefined) {
        this.yaml.complain(
          at,
          `then.${verb}: a profile has no ${printableLine(key, 80)} to change${suggest(key.slice(0, 80), fieldNames)}`,
        );
        return [];
      }
      if ((order.kind === 'ladder') !== (verb === 'require')) {
        this.yaml.complain(
          at,
          `then.${verb}: ${key} is changed with ${order.kind === 'ladder' ? 'require' : 'raise or lower'}`,
        );
        return [];
      }
      const field = key as FieldName;
      const parsed = this.#value(field, value);
      return parsed === undefined
        ? []
        : [{ field, effect: verb === 'raise' ? ('permit' as const) : ('restrict' as const), value: parsed }];
    });
  }

  #value(field: FieldName, node: YamlNode | null): FieldValue | undefined {
    const value = this.yaml.scalar(node, field);
    if (value === undefined) return undefined;
    const parsed = parseFieldValue(field, value);
    if (typeof parsed === 'object') this.yaml.complain(node, `${field}: ${parsed.problem}`);
    return typeof parsed === 'object' ? undefined : parsed;
  }

  #checkOwn(at: YamlNode | null, wishes: readonly Omit<Wish, 'by'>[]): void {
    const fields = wishes.map(({ field }) => field);
    const twice = fields.find((field, index) => fields.indexOf(field) !== index);
    if (twice !== undefined) this.yaml.complain(at, `then: ${twice} is both raised and lowered`);
  }
}
