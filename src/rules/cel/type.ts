/** Types of rule expressions: the schema of a rule's context is written in them, and they are compared at load. */

export type CelType =
  | { readonly kind: 'bool' | 'int' | 'double' | 'string' | 'null' | 'dyn' }
  | { readonly kind: 'list'; readonly of: CelType }
  /** Text keys. */
  | { readonly kind: 'map'; readonly of: CelType }
  | { readonly kind: 'object'; readonly name: string; readonly fields: Readonly<Record<string, CelType>> };

export const BOOL: CelType = { kind: 'bool' };
export const INT: CelType = { kind: 'int' };
export const DOUBLE: CelType = { kind: 'double' };
export const STRING: CelType = { kind: 'string' };
export const NULL: CelType = { kind: 'null' };
/** Known only when the event is there: what JSON can hold. Its numbers are doubles. */
export const DYN: CelType = { kind: 'dyn' };

export function listOf(of: CelType): CelType {
  return { kind: 'list', of };
}

export function describeType(type: CelType): string {
  switch (type.kind) {
    case 'list':
      return `list of ${describeType(type.of)}`;
    case 'map':
      return `map of ${describeType(type.of)}`;
    case 'object':
      return type.name;
    case 'dyn':
      return 'any JSON value';
    default:
      return type.kind;
  }
}

export function isNumber({ kind }: CelType): boolean {
  return kind === 'int' || kind === 'double' || kind === 'dyn';
}

/** Whether a value of one type can ever equal a value of the other. */
export function isComparable(a: CelType, b: CelType): boolean {
  if (a.kind === 'dyn' || b.kind === 'dyn') return true;
  if (isNumber(a) && isNumber(b)) return true;
  if (a.kind === 'list' && b.kind === 'list') return isComparable(a.of, b.of);
  return a.kind === b.kind;
}

/** The type of a value that is one or the other; undefined when they have nothing in common. */
export function unite(a: CelType, b: CelType): CelType | undefined {
  if (a.kind === 'dyn' || b.kind === 'dyn') return DYN;
  if (a.kind === 'list' && b.kind === 'list') {
    const of = unite(a.of, b.of);
    return of === undefined ? undefined : listOf(of);
  }
  return a.kind === b.kind ? a : undefined;
}
