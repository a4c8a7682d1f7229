/**
 * Tests that customers write for their rules: the key `tests` of a rule file. An event, what is known of its sender
 * and of the threat, and what the profile must then be. docs/RULES.md has the format.
 */
import { printableLine } from '../core/json.ts';
import { limits } from '../core/limits.ts';
import { levelOf, threatLevels } from '../profile/levels.ts';
import type { ThreatLevel } from '../profile/levels.ts';
import { fieldNames, fieldOrders } from '../profile/order.ts';
import type { FieldName, FieldValue } from '../profile/order.ts';
import type { NetworkPolicy } from '../profile/network.ts';
import type { Reason } from '../profile/profile.ts';
import type { RequestedLimits, RequestedPaths } from '../profile/request.ts';
import { suggest } from './cel/suggest.ts';
import type { EventSource, FunctionFacts, MatchedIndicator, Threat } from './context.ts';
import type { RuleFile } from './load.ts';
import type { Place, RuleProblem } from './rule.ts';
import { parseFieldValue } from './units.ts';
import { YamlReader } from './yaml.ts';
import type { Entry, YamlNode } from './yaml.ts';

/** An event with everything that its profile follows from. */
export interface RuleCase {
  /** UTF-8 JSON. */
  readonly event: Buffer;
  readonly source: EventSource;
  readonly function: FunctionFacts;
  readonly threat: Threat;
  /** When it was accepted, ms since 1970. */
  readonly atMillis: number;
  readonly imageDigest?: string;
  readonly imageReasons?: readonly Reason[];
  /** Names of the classes of its kernel policy. */
  readonly imagePolicy?: { readonly seccomp: string; readonly appArmor: string };
  readonly limits?: RequestedLimits;
  readonly paths?: RequestedPaths;
  readonly minimumIsolation?: 'kvm' | 'tcg';
  readonly network?: NetworkPolicy;
}

export interface RuleTest extends RuleCase {
  readonly name: string;
  readonly place: Place;
  readonly expect: Expectation;
}

export interface Expectation {
  readonly fields: readonly (readonly [FieldName, FieldValue])[];
  /** Part of the message with which a rule must refuse the event. */
  readonly rejected?: string;
  readonly level?: ThreatLevel;
  /** Texts that must occur in the reasons, as the name of a rule. */
  readonly reasons: readonly string[];
}

export interface LoadedTests {
  readonly tests: readonly RuleTest[];
  readonly problems: readonly RuleProblem[];
}

export const anyFunction: FunctionFacts = Object.freeze({ name: '/function/handler', image: 'node', kind: 'runtime' });

/** `readEvent` gets a path as it stands in the file and answers undefined when there is no such file. */
export function loadTests(
  files: readonly RuleFile[],
  readEvent: (file: string, path: string) => Buffer | undefined,
): LoadedTests {
  const tests: RuleTest[] = [];
  const problems: RuleProblem[] = [];
  for (const file of files) {
    const reader = new TestReader(file, readEvent);
    tests.push(...reader.read());
    problems.push(...reader.yaml.problems);
  }
  return { tests, problems };
}

class TestReader {
  readonly yaml: YamlReader;
  readonly #name: string;
  readonly #readEvent: (path: string) => Buffer | undefined;

  constructor({ name, bytes }: RuleFile, readEvent: (file: string, path: string) => Buffer | undefined) {
    this.#name = name;
    this.yaml = new YamlReader(name, bytes);
    this.#readEvent = (path) => readEvent(name, path);
  }

  read(): RuleTest[] {
    const { yaml } = this;
    const tests =
      yaml.root === null ? undefined : yaml.entries(yaml.root, 'a rule file')?.find(({ key }) => key === 'tests');
    if (tests === undefined) return [];
    return yaml
      .items(tests.value, 'tests')
      .slice(0, limits.rulesMax)
      .flatMap((node) => this.#test(node) ?? []);
  }

  #test(node: YamlNode): RuleTest | undefined {
    const { yaml } = this;
    const before = yaml.problems.length;
    const known = ['name', 'event', 'source', 'function', 'threat', 'at', 'expect'];
    const entries = yaml.entries(node, 'a test', known) ?? [];
    const find = (key: string): Entry | undefined => entries.find((entry) => entry.key === key);
    const name = yaml.text(find('name')?.value ?? null, 'name of the test');
    const event = this.#event(find('event'), node);
    const at = find('at') === undefined ? 0 : Date.parse(yaml.text(find('at')?.value, 'at') ?? '');
    if (Number.isNaN(at)) yaml.complain(find('at')?.at, 'at must be a time, as in 2026-01-01T12:00:00Z');
    const source = this.#texts(find('source'), 'source', ['ip', 'asn', 'tenant', 'principal']);
    const target = { ...anyFunction, ...this.#texts(find('function'), 'function', ['name', 'image', 'kind']) };
    const threat = this.#threat(find('threat'));
    const expectation = find('expect');
    if (expectation === undefined) yaml.complain(node, 'a test needs expect');
    const expect = this.#expect(expectation);
    if (yaml.problems.length > before || name === undefined || event === undefined) return undefined;
    const place = { file: this.#name, line: yaml.lineOf(node) };
    return { name, place, event, source, function: target as FunctionFacts, threat, atMillis: at, expect };
  }

  #event(entry: Entry | undefined, test: YamlNode): Buffer | undefined {
    const { yaml } = this;
    if (entry === undefined || entry.value === null) {
      yaml.complain(test, 'a test needs event: a file, or the event itself');
      return undefined;
    }
    if ('items' in entry.value) return Buffer.from(JSON.stringify(yaml.plain(entry.value)));
    const path = yaml.text(entry.value, 'event');
    const bytes = path === undefined ? undefined : this.#readEvent(path);
    if (path !== undefined && bytes === undefined)
      yaml.complain(entry.at, `event: ${printableLine(path, 100)} cannot be read`);
    return bytes;
  }

  #texts(entry: Entry | undefined, what: string, known: readonly string[]): Readonly<Record<string, string>> {
    if (entry === undefined) return {};
    const entries = this.yaml.entries(entry.value, what, known) ?? [];
    return Object.fromEntries(entries.map(({ key, value }) => [key, this.yaml.text(value, `${what}.${key}`) ?? '']));
  }

  #threat(entry: Entry | undefined): Threat {
    const { yaml } = this;
    const entries =
      entry === undefined ? [] : (yaml.entries(entry.value, 'threat', ['score', 'level', 'indicators']) ?? []);
    const find = (key: string): Entry | undefined => entries.find((each) => each.key === key);
    const score = find('score') === undefined ? 0 : yaml.scalar(find('score')?.value, 'threat.score');
    if (typeof score !== 'number' || score < 0 || score > 100)
      yaml.complain(entry?.at, 'threat.score must be 0 to 100');
    const given = this.#level(find('level'));
    const indicators = find('indicators') === undefined ? [] : yaml.plain(find('indicators')?.value);
    const level = given ?? levelOf(Number(score));
    return { score: Number(score), level, indicators: Array.isArray(indicators) ? indicators.map(asIndicator) : [] };
  }

  #level(entry: Entry | undefined): ThreatLevel | undefined {
    if (entry === undefined) return undefined;
    const text = this.yaml.text(entry.value, 'level');
    const level = threatLevels.find((each) => each === text);
    if (level === undefined) this.yaml.complain(entry.at, `level must be one of ${threatLevels.join(', ')}`);
    return level;
  }

  #expect(entry: Entry | undefined): Expectation {
    const { yaml } = this;
    const known = ['profile', 'rejected', 'level', 'reasons'];
    const entries = entry === undefined ? [] : (yaml.entries(entry.value, 'expect', known) ?? []);
    const find = (key: string): Entry | undefined => entries.find((each) => each.key === key);
    const profile = find('profile');
    const fields = (profile === undefined ? [] : (yaml.entries(profile.value, 'expect.profile') ?? [])).flatMap(
      ({ key, at, value }) => this.#field(key, at, value),
    );
    const listed = find('reasons');
    const reasons = (listed === undefined ? [] : yaml.items(listed.value, 'expect.reasons')).flatMap(
      (node) => yaml.text(node, 'a reason') ?? [],
    );
    const level = this.#level(find('level'));
    const rejected = find('rejected') === undefined ? undefined : yaml.text(find('rejected')?.value, 'expect.rejected');
    return {
      fields,
      reasons,
      ...(level === undefined ? {} : { level }),
      ...(rejected === undefined ? {} : { rejected }),
    };
  }

  #field(key: string, at: YamlNode, node: YamlNode | null): (readonly [FieldName, FieldValue])[] {
    if (!Object.hasOwn(fieldOrders, key)) {
      this.yaml.complain(
        at,
        `expect: a profile has no ${printableLine(key, 80)}${suggest(key.slice(0, 80), fieldNames)}`,
      );
      return [];
    }
    const field = key as FieldName;
    const value = parseFieldValue(field, this.yaml.scalar(node, key));
    if (typeof value !== 'object') return [[field, value]];
    this.yaml.complain(at, `expect: ${key}: ${value.problem}`);
    return [];
  }
}

const severities = ['low', 'medium', 'high', 'critical'] as const;

/** What is missing in a test's indicator is filled in: a rule that looks at it must find something. */
function asIndicator(value: unknown): MatchedIndicator {
  const given = (typeof value === 'object' && value !== null ? value : {}) as Readonly<Record<string, unknown>>;
  const text = (key: string, otherwise: string): string => (typeof given[key] === 'string' ? given[key] : otherwise);
  return {
    kind: text('kind', 'ip'),
    value: text('value', ''),
    source: text('source', 'test'),
    confidence: typeof given['confidence'] === 'number' ? given['confidence'] : 50,
    severity: severities.find((each) => each === given['severity']) ?? 'medium',
    labels: Array.isArray(given['labels']) ? given['labels'].map(String) : [],
  };
}
