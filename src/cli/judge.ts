/** Profiles against what a test expects of them, and against each other. */
import type { CaseResult } from '../policy.ts';
import { canonicalJson } from '../core/json.ts';
import type { SealedProfile } from '../profile/profile.ts';
import { fieldNames, fieldOf, showFieldValue } from '../profile/order.ts';
import type { RuleTest } from '../rules/suite.ts';

/** What is not as expected, a line each; none when the test passes. */
export function judge({ expect }: RuleTest, result: CaseResult): string[] {
  if (result.kind === 'rejected') {
    if (expect.rejected === undefined) return [`the event is refused: ${result.message}`];
    return result.message.includes(expect.rejected)
      ? []
      : [`expected to be refused with ${expect.rejected}: ${result.message}`];
  }
  if (expect.rejected !== undefined) return ['expected to be refused, and is not'];
  const { profile, reasons } = result.sealed;
  const failures: string[] = [];
  for (const [field, wanted] of expect.fields) {
    const value = fieldOf(profile, field);
    if (value === wanted) continue;
    const why = reasons.findLast((reason) => reason.field === field && reason.overruled !== true)?.because;
    failures.push(`${field}: expected ${showFieldValue(field, wanted)}, is ${showFieldValue(field, value)} (${why})`);
  }
  if (
    expect.level !== undefined &&
    !reasons.some(({ field, because }) => field === 'threat' && because.endsWith(`level ${expect.level}`))
  ) {
    failures.push(`expected level ${expect.level}: ${reasons.find(({ field }) => field === 'threat')?.because}`);
  }
  for (const text of expect.reasons) {
    if (!reasons.some(({ because }) => because.includes(text)))
      failures.push(`no reason mentions ${JSON.stringify(text)}`);
  }
  return failures;
}

/** A line for each field that differs, with the new reason; none when both are the same. */
export function profileDifferences(before: CaseResult, after: CaseResult): string[] {
  if (before.kind === 'rejected' || after.kind === 'rejected') {
    if (before.kind === after.kind) return [];
    return [after.kind === 'rejected' ? `would be refused: ${after.message}` : 'would no longer be refused'];
  }
  return [...networkDifference(before.sealed, after.sealed), ...fieldNames.flatMap((field) => {
    const [old, now] = [fieldOf(before.sealed.profile, field), fieldOf(after.sealed.profile, field)];
    if (old === now) return [];
    const why = after.sealed.reasons.findLast((reason) => reason.field === field && reason.overruled !== true)?.because;
    return [`${field}: ${showFieldValue(field, old)} → ${showFieldValue(field, now)} (${why})`];
  })];
}

/** Destinations that are new, and those that are gone. */
function networkDifference(before: SealedProfile, after: SealedProfile): string[] {
  const lines = ({ profile }: SealedProfile): string[] => profile.network.rules.map((rule) => canonicalJson(rule));
  const [old, now] = [lines(before), lines(after)];
  return [
    ...now.filter((line) => !old.includes(line)).map((line) => `network: + ${line}`),
    ...old.filter((line) => !now.includes(line)).map((line) => `network: - ${line}`),
  ];
}
