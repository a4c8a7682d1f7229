/**
 * Loops: `exists`, `all`, `exists_one`, `map` and `filter`. The parser turns them into general folds; each is
 * recognised by its shape and runs as what it was written as, with a step for every element.
 */
import type { Expr, Walker } from './compile.ts';
import { CelProblem } from './node.ts';
import type { Node } from './node.ts';
import { flip, join, opaque } from './threat.ts';
import type { ThreatSense } from './threat.ts';
import { BOOL, describeType, DYN, listOf, STRING } from './type.ts';
import type { CelType } from './type.ts';
import { CelFailure, exhausted, isRecord, nameOfValue, spend } from './value.ts';
import type { Scope } from './value.ts';

type Fold = Extract<Expr['exprKind'], { case: 'comprehensionExpr' }>['value'];

const NOT_A_MACRO = 'this loop cannot be written in a rule';
const UNFIT = new CelFailure('the condition of a loop is not true or false');

interface Loop {
  readonly range: Node;
  readonly slot: number;
  readonly body: Node;
}

export class Macros {
  readonly #walker: Walker;

  constructor(walker: Walker) {
    this.#walker = walker;
  }

  build(fold: Fold): Node {
    const range = this.#walker.walk(fold.iterRange);
    const element = elementOf(range.type);
    if (element === undefined)
      throw new CelProblem(`a loop goes over lists and maps, not over ${describeType(range.type)}`);
    return this.#walker.inLoop(fold.iterVar, element, (slot) => this.#shape(fold, range, slot));
  }

  #shape(fold: Fold, range: Node, slot: number): Node {
    const start = fold.accuInit?.exprKind;
    const step = callOf(fold.loopStep);
    if (start?.case === 'listExpr') return this.#listing(step, range, slot);
    const kind = start?.case === 'constExpr' ? start.value.constantKind.case : undefined;
    const which = `${kind} ${step.name}`;
    const of = (body: Expr | undefined): Loop => ({ range, slot, body: this.#condition(body) });
    if (which === 'boolValue _||_') return quantifier(of(step.args[1]), true);
    if (which === 'boolValue _&&_') return quantifier(of(step.args[1]), false);
    if (which === 'int64Value _?_:_') return existsOne(of(step.args[0]));
    throw new CelProblem(NOT_A_MACRO);
  }

  #condition(body: Expr | undefined): Node {
    const node = this.#walker.walk(body);
    if (node.type.kind === 'bool' || node.type.kind === 'dyn') return node;
    throw new CelProblem(`the condition of a loop is ${describeType(node.type)}; it must be true or false`);
  }

  /** map(x, f), filter(x, p) and map(x, p, f). */
  #listing(step: Call, range: Node, slot: number): Node {
    const guarded = step.name === '_?_:_';
    const condition = guarded ? this.#condition(step.args[0]) : undefined;
    const append = guarded ? callOf(step.args[1]) : step;
    const added = append.args[1]?.exprKind;
    if (append.name !== '_+_' || added?.case !== 'listExpr') throw new CelProblem(NOT_A_MACRO);
    const body = this.#walker.walk(added.value.elements[0]);
    const senses = [body.threat, condition?.threat ?? 'none'];
    const threat: ThreatSense = senses.every((sense) => sense === 'none') ? range.threat : opaque('up');
    return {
      type: listOf(body.type),
      threat,
      run: (scope) => {
        const list: unknown[] = [];
        const failure = each(scope, { range, slot }, () => {
          const chosen = condition === undefined ? true : condition.run(scope);
          if (chosen === false) return undefined;
          if (chosen !== true) return chosen instanceof CelFailure ? chosen : UNFIT;
          const value = body.run(scope);
          if (value instanceof CelFailure) return value;
          list.push(value);
          return undefined;
        });
        return failure ?? list;
      },
    };
  }
}

interface Call {
  readonly name: string;
  readonly args: readonly Expr[];
}

function callOf(expr: Expr | undefined): Call {
  if (expr?.exprKind.case !== 'callExpr') throw new CelProblem(NOT_A_MACRO);
  return { name: expr.exprKind.value.function, args: expr.exprKind.value.args };
}

function elementOf(type: CelType): CelType | undefined {
  if (type.kind === 'list') return type.of;
  if (type.kind === 'map') return STRING;
  return type.kind === 'dyn' ? DYN : undefined;
}

/** Ends with the first answer of `visit` that is not undefined. */
function each(scope: Scope, { range, slot }: Pick<Loop, 'range' | 'slot'>, visit: () => unknown): unknown {
  const items = range.run(scope);
  if (items instanceof CelFailure) return items;
  if (scope.steps < 0) return exhausted;
  const list = isRecord(items) ? Object.keys(items) : items;
  if (!Array.isArray(list)) return new CelFailure(`a loop goes over lists and maps, not over ${nameOfValue(items)}`);
  // Taking the keys of a large object costs before the first of them is looked at.
  if (list !== items && !spend(scope, Math.floor(list.length / 8))) return exhausted;
  for (const item of list) {
    if (!spend(scope, 1)) return exhausted;
    scope.vars[slot] = item;
    const answer = visit();
    if (answer !== undefined) return answer;
  }
  return undefined;
}

/** `exists` ends with the first true, `all` with the first false; a failure counts only when none decides. */
function quantifier(loop: Loop, decisive: boolean): Node {
  const { range, body } = loop;
  return {
    type: BOOL,
    threat: join(decisive ? range.threat : flip(range.threat), body.threat),
    run: (scope) => {
      let failure: CelFailure | undefined;
      const answer = each(scope, loop, () => {
        const value = body.run(scope);
        if (value === decisive) return decisive;
        if (value !== !decisive) failure ??= value instanceof CelFailure ? value : UNFIT;
        return undefined;
      });
      return answer ?? failure ?? !decisive;
    },
  };
}

function existsOne(loop: Loop): Node {
  return {
    type: BOOL,
    threat: opaque(loop.range.threat, loop.body.threat),
    run: (scope) => {
      let count = 0;
      const failure = each(scope, loop, () => {
        const value = loop.body.run(scope);
        if (value === true) count += 1;
        else if (value !== false) return value instanceof CelFailure ? value : UNFIT;
        return undefined;
      });
      return failure ?? count === 1;
    },
  };
}
