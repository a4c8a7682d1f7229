/** Classes of functions by what they must be able to do: an image names the one that its kernel policy is made for. */

export const policyClasses = ['compute', 'web', 'shell', 'database', 'image', 'document', 'analysis'] as const;

export type PolicyClass = (typeof policyClasses)[number];

export function isPolicyClass(name: string): name is PolicyClass {
  return (policyClasses as readonly string[]).includes(name);
}

/**
 * These open what others have sent, with large parsers. They get no socket of the network unless the profile has a
 * network policy that allows something; the rest get one in any case, and are refused by the broker.
 */
export const parsingClasses: ReadonlySet<PolicyClass> = new Set(['image', 'document', 'analysis']);
