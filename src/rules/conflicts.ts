/**
 * Rules that contradict each other, found when they are loaded. Restriction beats permission, so a contradiction has
 * a defined outcome: it is a warning when the two can apply together, and an error when the one can never have its
 * effect.
 */
import { isStricter, showFieldValue } from '../profile/order.ts';
import type { Wish } from '../profile/order.ts';
import { limits } from '../core/limits.ts';
import { covers } from './destinations.ts';
import { showPlace } from './rule.ts';
import type { Rule, RuleProblem } from './rule.ts';

interface Owned {
  readonly rule: Rule;
  readonly wish: Omit<Wish, 'by'>;
}

export function findConflicts(rules: readonly Rule[]): RuleProblem[] {
  const owned = rules.flatMap((rule) => rule.effects.wishes.map((wish) => ({ rule, wish })));
  const problems: RuleProblem[] = [];
  for (const permit of owned.filter(({ wish }) => wish.effect === 'permit')) {
    for (const restrict of owned) {
      if (problems.length >= limits.ruleProblemsMax) return problems;
      const problem = conflictOf(permit, restrict);
      if (problem !== undefined) problems.push(problem);
    }
  }
  return [...problems, ...deniedAllows(rules)].slice(0, limits.ruleProblemsMax);
}

/** A destination that one rule allows and another denies as a whole: denied, when both apply. */
function deniedAllows(rules: readonly Rule[]): RuleProblem[] {
  const placed = rules.flatMap((rule) => (rule.effects.destinations ?? []).map((place) => ({ rule, place })));
  return placed.flatMap((allow): RuleProblem[] => {
    if (allow.place.action !== 'allow') return [];
    const deny = placed.find(
      ({ rule, place }) => place.action === 'deny' && covers(place, allow.place) && !exclude(allow.rule, rule),
    );
    if (deny === undefined) return [];
    const always = deny.rule.when === 'true' || deny.rule.when === allow.rule.when;
    const other = `rule ${deny.rule.name} (${showPlace(deny.rule.place)}) denies it`;
    const message = `rule ${allow.rule.name} allows ${allow.place.host ?? allow.place.cidr}: ${other}`;
    const how = always ? ' whenever it applies' : '; on an event for which both apply, it is denied';
    return [{ ...allow.rule.place, severity: always ? 'error' : 'warning', message: `${message}${how}` }];
  });
}

function conflictOf(permit: Owned, restrict: Owned): RuleProblem | undefined {
  const { field, value } = permit.wish;
  if (restrict.wish.effect !== 'restrict' || restrict.wish.field !== field) return undefined;
  if (!isStricter(field, restrict.wish.value, value) || exclude(permit.rule, restrict.rule)) return undefined;
  const [raised, lowered] = [showFieldValue(field, value), showFieldValue(field, restrict.wish.value)];
  const other = `rule ${restrict.rule.name} (${showPlace(restrict.rule.place)}) lowers it to ${lowered}`;
  const always = restrict.rule.when === 'true' || restrict.rule.when === permit.rule.when;
  return {
    ...permit.rule.place,
    severity: always ? 'error' : 'warning',
    message: `rule ${permit.rule.name} raises ${field} to ${raised}${always ? ' and can never have that effect' : ''}: `
      + `${other}${always ? ' whenever it applies' : `; on an event for which both apply, ${lowered} counts`}`,
  };
}

/** Whether both demand different values of one and the same member of the context. */
function exclude(a: Rule, b: Rule): boolean {
  for (const [path, values] of a.condition.demands) {
    const others = b.condition.demands.get(path);
    if (others !== undefined && [...values].every((value) => !others.has(value))) return true;
  }
  return false;
}
