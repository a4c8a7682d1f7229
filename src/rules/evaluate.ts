/**
 * Which rules apply to an event, and what they wish. Pure, bounded by steps, and it never throws.
 *
 * First the rules that add to the score look at the score that the event came with; then all rules look at the sum. A
 * rule that fails (a field is missing, a division by zero, too many steps) restricts as if it applied and permits as
 * if it did not, and says so.
 */
import { limits } from '../core/limits.ts';
import { levelOf, threatLevels } from '../profile/levels.ts';
import type { ThreatLevel } from '../profile/levels.ts';
import type { ImageWish } from '../profile/choose.ts';
import type { NetworkRule } from '../profile/network.ts';
import type { Wish } from '../profile/order.ts';
import type { Reason } from '../profile/profile.ts';
import { CelFailure } from './cel/value.ts';
import { contextValues } from './context.ts';
import type { RuleContext } from './context.ts';
import { showPlace } from './rule.ts';
import type { Rule, RuleSet } from './rule.ts';

export interface Decision {
  /** With what the rules have added. */
  readonly score: number;
  readonly level: ThreatLevel;
  readonly wishes: readonly Wish[];
  readonly images: readonly ImageWish[];
  /** What rules that apply allow and deny to connect to. */
  readonly destinations: readonly { readonly rule: NetworkRule; readonly by: string }[];
  /** Of rules that refuse the event: which, and why. */
  readonly rejections: readonly string[];
  /** About the rules themselves: fields `rules` and `threat`. */
  readonly reasons: readonly Reason[];
}

export function evaluateRules({ rules, digest }: RuleSet, context: RuleContext): Decision {
  const account = { steps: limits.ruleStepsOfEventMax };
  const scoring = scoreOf(rules, context, account);
  const threat = { ...context.threat, score: scoring.score, level: scoring.level };
  const values = contextValues({ ...context, threat });
  const [wishes, rejections, reasons]: [Wish[], string[], Reason[]] = [[], [], [...scoring.reasons]];
  const images: ImageWish[] = [];
  const destinations: { rule: NetworkRule; by: string }[] = [];
  let applied = 0;
  for (const rule of rules) {
    const answer = run(rule, values, account);
    if (answer === false) continue;
    applied += 1;
    const { by, failed } = named(rule, answer);
    if (failed !== undefined)
      reasons.push({ field: 'rules', because: `${by} failed, so it restricts and does not permit: ${failed}` });
    for (const wish of rule.effects.wishes) {
      if (wish.effect === 'restrict' || answer === true) wishes.push({ ...wish, by });
    }
    const { image } = rule.effects;
    if (image !== undefined) images.push({ image, by, byThreat: rule.condition.threat !== 'none' });
    for (const place of rule.effects.destinations ?? []) {
      if (place.action === 'deny' || answer === true) destinations.push({ rule: place, by });
    }
    if (rule.effects.reject !== undefined)
      rejections.push(`${by}: ${rule.effects.reject}${failed === undefined ? '' : ` (it failed: ${failed})`}`);
  }
  reasons.push({ field: 'rules', because: `${applied} of ${rules.length} rules apply (${digest.slice(0, 19)}…)` });
  return { score: scoring.score, level: scoring.level, wishes, images, destinations, rejections, reasons };
}

function scoreOf(
  rules: readonly Rule[],
  context: RuleContext,
  account: { steps: number },
): Pick<Decision, 'score' | 'level' | 'reasons'> {
  const scoring = rules.filter(({ effects }) => effects.score !== undefined);
  const { score: before, level: given } = context.threat;
  if (scoring.length === 0) return { score: before, level: given, reasons: [] };
  const values = contextValues(context);
  const reasons: Reason[] = [];
  let score = before;
  for (const rule of scoring) {
    const answer = run(rule, values, account);
    if (answer === false) continue;
    const added = rule.effects.score ?? 0;
    score = Math.min(100, score + added);
    reasons.push({ field: 'threat', because: `${named(rule, answer).by} adds ${added}` });
  }
  // The assessment may have set a level above the one of its score; adding must not take that back.
  const level = threatLevels[Math.max(threatLevels.indexOf(given), threatLevels.indexOf(levelOf(score)))] ?? 'critical';
  return { score, level, reasons };
}

function run({ condition }: Rule, values: readonly unknown[], account: { steps: number }): boolean | CelFailure {
  const allowed = Math.min(limits.ruleStepsMax, account.steps);
  const { outcome, steps } = condition.evaluate(values, allowed);
  account.steps -= allowed - steps;
  return outcome;
}

function named(
  { name, place }: Rule,
  answer: true | CelFailure,
): { readonly by: string; readonly failed: string | undefined } {
  return {
    by: `rule ${name} (${showPlace(place)})`,
    failed: answer instanceof CelFailure ? answer.message : undefined,
  };
}
