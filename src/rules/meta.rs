//! Meta rules: boolean and arithmetic expressions over the hits of other rules.

/// Deepest nesting of parentheses and signs.
const DEPTH: usize = 40;
/// Most names, numbers and signs in one expression.
const TOKENS: usize = 1_000;

/// The reserved name that is 1: rules look up nothing.
const LOCAL: &str = "local_tests_only";
const TOO_DEEP: &str = "the expression is nested too deeply";

/// An expression over rules that are named by `N`: a name at first, an index when resolved.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expr<N> {
    /// 1 when the rule hit, else 0.
    Rule(N),
    /// A number.
    Number(f64),
    /// `!`
    Not(Box<Expr<N>>),
    /// Unary minus.
    Negative(Box<Expr<N>>),
    /// Operands joined by one level of precedence, from left to right.
    Chain(Box<Expr<N>>, Vec<(Operator, Expr<N>)>),
    /// `condition ? this : that`
    Choice(Box<[Expr<N>; 3]>),
}

/// A binary operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Or,
    And,
    /// `^`, true when one of two is.
    Either,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Plus,
    Minus,
    Times,
    Over,
}

/// Operators by precedence, loosest first; longer spellings first.
const LEVELS: [&[(&str, Operator)]; 7] = [
    &[("||", Operator::Or)],
    &[("&&", Operator::And)],
    &[("^", Operator::Either)],
    &[("==", Operator::Equal), ("!=", Operator::NotEqual)],
    &[
        ("<=", Operator::LessOrEqual),
        (">=", Operator::GreaterOrEqual),
        ("<", Operator::Less),
        (">", Operator::Greater),
    ],
    &[("+", Operator::Plus), ("-", Operator::Minus)],
    &[("*", Operator::Times), ("/", Operator::Over)],
];

impl Expr<String> {
    /// Reads an expression.
    ///
    /// # Errors
    /// The reason, in words.
    pub(super) fn read(source: &str) -> Result<Self, String> {
        let mut tokens = tokenize(source)?;
        tokens.reverse();
        let expr = whole(&mut tokens, DEPTH)?;
        match tokens.pop() {
            None => Ok(expr),
            Some(token) => Err(format!("`{token}` is not expected here")),
        }
    }

    /// Replaces names by what `resolve` makes of them.
    pub(super) fn resolve<N>(&self, resolve: &mut impl FnMut(&str) -> N) -> Expr<N> {
        match self {
            Expr::Rule(name) => Expr::Rule(resolve(name)),
            Expr::Number(number) => Expr::Number(*number),
            Expr::Not(inner) => Expr::Not(Box::new(inner.resolve(resolve))),
            Expr::Negative(inner) => Expr::Negative(Box::new(inner.resolve(resolve))),
            Expr::Chain(first, rest) => Expr::Chain(
                Box::new(first.resolve(resolve)),
                rest.iter().map(|(operator, expr)| (*operator, expr.resolve(resolve))).collect(),
            ),
            Expr::Choice(parts) => Expr::Choice(Box::new(parts.each_ref().map(|part| part.resolve(resolve)))),
        }
    }

    /// Returns the names in the expression.
    pub(super) fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        self.resolve(&mut |name| names.push(name.to_owned()));
        names
    }
}

impl<N> Expr<N> {
    /// Calls `visit` with every rule that is named.
    pub(super) fn each_rule(&self, visit: &mut impl FnMut(&N)) {
        match self {
            Expr::Rule(name) => visit(name),
            Expr::Number(_) => {}
            Expr::Not(inner) | Expr::Negative(inner) => inner.each_rule(visit),
            Expr::Chain(first, rest) => {
                first.each_rule(visit);
                rest.iter().for_each(|(_, expr)| expr.each_rule(visit));
            }
            Expr::Choice(parts) => parts.iter().for_each(|part| part.each_rule(visit)),
        }
    }

    /// Computes the value; `hits` tells how often a rule hit. Division by zero is zero.
    pub(super) fn value(&self, hits: &impl Fn(&N) -> f64) -> f64 {
        let truth = |is_true: bool| if is_true { 1.0 } else { 0.0 };
        match self {
            Expr::Rule(name) => hits(name),
            Expr::Number(number) => *number,
            Expr::Not(inner) => truth(inner.value(hits) == 0.0),
            Expr::Negative(inner) => -inner.value(hits),
            Expr::Chain(first, rest) => rest.iter().fold(first.value(hits), |left, (operator, expr)| {
                let right = || expr.value(hits);
                match operator {
                    // As in Perl, they are one of their operands, not only true or false.
                    Operator::Or if left == 0.0 => right(),
                    Operator::Or => left,
                    Operator::And if left == 0.0 => 0.0,
                    Operator::And => right(),
                    Operator::Either => truth((left == 0.0) != (right() == 0.0)),
                    Operator::Equal => truth(left == right()),
                    Operator::NotEqual => truth(left != right()),
                    Operator::Less => truth(left < right()),
                    Operator::LessOrEqual => truth(left <= right()),
                    Operator::Greater => truth(left > right()),
                    Operator::GreaterOrEqual => truth(left >= right()),
                    Operator::Plus => left + right(),
                    Operator::Minus => left - right(),
                    Operator::Times => left * right(),
                    Operator::Over => match right() {
                        0.0 => 0.0,
                        divisor => left / divisor,
                    },
                }
            }),
            Expr::Choice(parts) => {
                let [condition, this, that] = &**parts;
                if condition.value(hits) == 0.0 { that.value(hits) } else { this.value(hits) }
            }
        }
    }
}

fn tokenize(source: &str) -> Result<Vec<String>, String> {
    let mut tokens = Vec::new();
    let mut chars = source.chars().peekable();
    while let Some(c) = chars.next() {
        let mut token = String::from(c);
        match c {
            _ if c.is_whitespace() => continue,
            'A'..='Z' | 'a'..='z' | '_' | '0'..='9' | '.' => {
                while let Some(c) = chars.next_if(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.')) {
                    token.push(c);
                }
            }
            '&' | '|' | '=' => match chars.next_if_eq(&c) {
                Some(second) => token.push(second),
                None => return Err(format!("`{c}` is not an operator")),
            },
            '!' | '<' | '>' => token.extend(chars.next_if_eq(&'=')),
            '(' | ')' | '+' | '-' | '*' | '/' | '^' | '?' | ':' => {}
            other => return Err(format!("`{other}` is not expected in an expression")),
        }
        tokens.push(token);
        if tokens.len() > TOKENS {
            return Err(format!("the expression has more than {TOKENS} words"));
        }
    }
    Ok(tokens)
}

/// Reads an expression with the loosest operator, `condition ? this : that`.
fn whole(tokens: &mut Vec<String>, depth: usize) -> Result<Expr<String>, String> {
    let depth = depth.checked_sub(1).ok_or(TOO_DEEP)?;
    let condition = level(tokens, 0, depth)?;
    if tokens.pop_if(|token| token == "?").is_none() {
        return Ok(condition);
    }
    let this = whole(tokens, depth)?;
    if tokens.pop_if(|token| token == ":").is_none() {
        return Err("`?` has no `:`".to_owned());
    }
    Ok(Expr::Choice(Box::new([condition, this, whole(tokens, depth)?])))
}

/// Reads one level of precedence; `tokens` is reversed.
fn level(tokens: &mut Vec<String>, precedence: usize, depth: usize) -> Result<Expr<String>, String> {
    let Some(operators) = LEVELS.get(precedence) else { return unary(tokens, depth) };
    let first = level(tokens, precedence + 1, depth)?;
    let mut rest = Vec::new();
    while let Some((_, operator)) =
        tokens.last().and_then(|token| operators.iter().find(|(spelling, _)| *spelling == token.as_str()))
    {
        tokens.pop();
        rest.push((*operator, level(tokens, precedence + 1, depth)?));
    }
    Ok(if rest.is_empty() { first } else { Expr::Chain(Box::new(first), rest) })
}

fn unary(tokens: &mut Vec<String>, depth: usize) -> Result<Expr<String>, String> {
    let depth = depth.checked_sub(1).ok_or(TOO_DEEP)?;
    let token = tokens.pop().ok_or("the expression ends too early")?;
    match token.as_str() {
        "!" => Ok(Expr::Not(Box::new(unary(tokens, depth)?))),
        "-" => Ok(Expr::Negative(Box::new(unary(tokens, depth)?))),
        "+" => unary(tokens, depth),
        // A declaration: `meta NAME ()` never hits.
        "(" if tokens.last().is_some_and(|token| token == ")") => {
            tokens.pop();
            Ok(Expr::Number(0.0))
        }
        "(" => {
            let inner = whole(tokens, depth)?;
            match tokens.pop().as_deref() {
                Some(")") => Ok(inner),
                _ => Err("a parenthesis is not closed".to_owned()),
            }
        }
        word if word.starts_with(|c: char| c.is_ascii_digit() || c == '.') => {
            word.parse().map(Expr::Number).map_err(|_| format!("`{word}` is no number"))
        }
        LOCAL => Ok(Expr::Number(1.0)),
        word if word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') => Ok(Expr::Rule(token)),
        other => Err(format!("`{other}` is not expected here")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, expected: Result<f64, &str>) {
        let value = Expr::read(source)
            .map(|expr| expr.value(&|name: &String| f64::from(u8::from(name.starts_with('T')))));
        assert_eq!(value, expected.map_err(str::to_owned), "{source}");
    }

    #[test]
    fn expressions_bind_as_in_c() {
        check("T && F || T1", Ok(1.0));
        check("F || T && F", Ok(0.0));
        check("!F && !(T && F)", Ok(1.0));
        check("(T + T1 + F) > 1", Ok(1.0));
        check("T + T1 + F >= 3", Ok(0.0));
        check("1 + 2 * 3 - 4 / 2", Ok(5.0));
        check("10 - 3 - 2", Ok(5.0));
        check("T / F", Ok(0.0));
        check("-1 < 0 == 1", Ok(1.0));
        check("2 != 2.0", Ok(0.0));
        check("T ^ F", Ok(1.0));
        check("T ^ T && F", Ok(0.0));
        check("F ? 2 : T ? 3 : 4", Ok(3.0));
        check("(2 || F) + (F || 3) + (1 && 4)", Ok(9.0));
        check("+2 - -1", Ok(3.0));
        check("()", Ok(0.0));
        check("local_tests_only && T", Ok(1.0));
    }

    #[test]
    fn malformed_expressions_say_why() {
        check("", Err("the expression ends too early"));
        check("T &", Err("`&` is not an operator"));
        check("(T", Err("a parenthesis is not closed"));
        check("T F", Err("`F` is not expected here"));
        check("T )", Err("`)` is not expected here"));
        check("1.2.3", Err("`1.2.3` is no number"));
        check("T ? 1", Err("`?` has no `:`"));
        check("T $ 1", Err("`$` is not expected in an expression"));
        check(&"!".repeat(100), Err("the expression is nested too deeply"));
        check(&"(".repeat(100), Err("the expression is nested too deeply"));
        check(&"T+".repeat(600), Err("the expression has more than 1000 words"));
    }
}
