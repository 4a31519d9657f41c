//! The same questions to several engines in turn, and the table of it.

use anyhow::{Result, ensure};

use super::answer::Answer;
use super::engines::Engine;
use crate::bench::measure::{Table, figure, median};

/// Seconds that all rounds of one question may take, by how long one took.
const QUESTION_SECONDS_MAX: f64 = 90.0;

/// One question, in the words of each side.
#[derive(Debug, Clone)]
pub(super) struct Question {
    pub(super) name: String,
    /// None where a side cannot be asked that.
    pub(super) texts: Vec<Option<String>>,
}

/// Someone who is asked.
pub(super) struct Side<'a> {
    pub(super) name: String,
    pub(super) engine: Box<dyn Engine + 'a>,
}

/// A goal for the ratios against one side.
#[derive(Debug, Clone, Copy)]
pub(super) struct Goal {
    /// Of all ratios, their geometric mean.
    pub(super) mean_max: f64,
    /// Of each.
    pub(super) each_max: Option<f64>,
}

/// What became of one question.
#[derive(Debug)]
struct Outcome {
    name: String,
    rounds: usize,
    /// Of each side, its seconds in each round.
    seconds: Vec<Vec<f64>>,
}

/// Asks every question of every side, the first of which is the one that the
/// others are held against: once to see that all answer the same, which also
/// warms the caches, then in rounds, each of which begins with another side.
pub(super) fn contest(
    sides: &mut [Side<'_>],
    questions: &[Question],
    rounds_max: usize,
    goals: &[Option<Goal>],
) -> Result<String> {
    ensure!(sides.len() > 1 && goals.len() == sides.len(), "two sides at least, a goal for each");
    let (mut results, mut faults) = (Vec::new(), Vec::new());
    for question in questions {
        let (asked, first_seconds) = agreed(sides, question, &mut faults);
        let fits = (QUESTION_SECONDS_MAX / first_seconds.max(1e-3)) as usize;
        // An odd number has a middle.
        let rounds = (rounds_max.min(fits.max(1)) - 1) / 2 * 2 + 1;
        let mut seconds = vec![Vec::new(); sides.len()];
        for round in 0..rounds {
            for place in 0..sides.len() {
                let at = (round + place) % sides.len();
                let Some(text) = question.texts[at].as_deref().filter(|_| asked[at]) else {
                    continue;
                };
                match sides[at].engine.ask(text) {
                    Ok(answer) => seconds[at].push(answer.seconds),
                    Err(error) => fault(&mut faults, question, &sides[at].name, &error),
                }
            }
        }
        let medians: Vec<String> = seconds.iter().map(|of| seconds_of(of)).collect();
        println!("{}: {} s, {rounds} rounds", question.name, medians.join(", "));
        results.push(Outcome { name: question.name.clone(), rounds, seconds });
    }
    Ok(report(sides, &results, goals, &faults))
}

/// Who is asked this question further on: the first side if it answers, and all
/// who answer as it does; and the seconds of everybody together.
fn agreed(
    sides: &mut [Side<'_>],
    question: &Question,
    faults: &mut Vec<String>,
) -> (Vec<bool>, f64) {
    let mut asked = vec![false; sides.len()];
    let (mut expected, mut seconds) = (None::<Answer>, 0.0);
    for (at, side) in sides.iter_mut().enumerate() {
        let Some(text) = &question.texts[at] else { continue };
        match side.engine.ask(text) {
            Err(error) => fault(faults, question, &side.name, &error),
            Ok(answer) => {
                seconds += answer.seconds;
                let expected = expected.get_or_insert_with(|| answer.clone());
                match expected.difference(&answer) {
                    None => asked[at] = true,
                    Some(difference) => {
                        let error = anyhow::anyhow!("another answer: {difference}");
                        fault(faults, question, &side.name, &error);
                    }
                }
            }
        }
    }
    (asked, seconds)
}

fn fault(faults: &mut Vec<String>, question: &Question, side: &str, error: &anyhow::Error) {
    let text = format!("{error:#}").replace('\n', " ");
    let text: String = text.chars().take(400).collect();
    println!("{} of {side}: {text}", question.name);
    faults.push(format!("{}, {side}: {text}", question.name));
}

fn seconds_of(of: &[f64]) -> String {
    match median(of.iter().copied()) {
        value if value.is_nan() => "–".to_owned(),
        value if value < 0.1 => format!("{value:.3}"),
        value => figure(value),
    }
}

/// The median over the rounds of the first side's seconds by those of `side`.
fn ratio(result: &Outcome, side: usize) -> Option<f64> {
    let (ours, others) = (&result.seconds[0], &result.seconds[side]);
    let ratio = median(ours.iter().zip(others).map(|(ours, other)| ours / other));
    ratio.is_finite().then_some(ratio)
}

fn report(
    sides: &[Side<'_>],
    results: &[Outcome],
    goals: &[Option<Goal>],
    faults: &[String],
) -> String {
    let mut columns: Vec<String> = vec!["question".to_owned()];
    columns.extend(sides.iter().map(|side| format!("{} s", side.name)));
    columns.extend(sides.iter().skip(1).map(|side| format!("by {}", side.name)));
    columns.push("rounds".to_owned());
    let mut table = Table::new(&columns.iter().map(String::as_str).collect::<Vec<_>>());
    for result in results {
        let mut cells = vec![result.name.clone()];
        cells.extend(result.seconds.iter().map(|of| seconds_of(of)));
        let ratios = (1..sides.len()).map(|side| ratio(result, side));
        cells.extend(ratios.map(|of| of.map_or_else(|| "–".to_owned(), figure)));
        cells.push(result.rounds.to_string());
        table.row(&cells.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let mut text = table.into_text();
    for (at, side) in sides.iter().enumerate().skip(1) {
        let ratios: Vec<f64> = results.iter().filter_map(|result| ratio(result, at)).collect();
        text += &format!("\n{}", verdict(&side.name, &ratios, results.len(), goals[at]));
    }
    if !faults.is_empty() {
        text += "\n\n**Not counted:**\n";
        for fault in faults {
            text += &format!("\n- {fault}");
        }
    }
    text + "\n"
}

/// One paragraph on the ratios against one side.
fn verdict(side: &str, ratios: &[f64], questions: usize, goal: Option<Goal>) -> String {
    let mean = geometric_mean(ratios);
    let worst = ratios.iter().copied().fold(f64::NAN, f64::max);
    let said = format!(
        "Against {side}: geometric mean **{}**, worst **{}**, over {} of {questions} questions",
        figure(mean),
        figure(worst),
        ratios.len(),
    );
    let Some(Goal { mean_max, each_max }) = goal else { return format!("{said}.\n") };
    let is_reached = ratios.len() == questions
        && mean <= mean_max
        && each_max.is_none_or(|each_max| worst <= each_max);
    let each = each_max.map_or_else(String::new, |max| format!(", none above {max}"));
    let word = if is_reached { "reached" } else { "missed" };
    format!("{said} (goal: at most {mean_max}{each}; {word}).\n")
}

fn geometric_mean(ratios: &[f64]) -> f64 {
    (ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / ratios.len() as f64).exp()
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use anyhow::bail;
    use serde_json::json;

    use super::*;

    /// Answers its own rows, a second each.
    struct Fixed(VecDeque<Option<i64>>, f64);

    impl Engine for Fixed {
        fn ask(&mut self, sql: &str) -> Result<Answer> {
            assert_eq!(sql, "q");
            self.0.rotate_left(1);
            match self.0.back().copied().flatten() {
                Some(number) => Ok(Answer { seconds: self.1, rows: vec![vec![json!(number)]] }),
                None => bail!("planted"),
            }
        }
    }

    fn check(other: &[Option<i64>], expected: &[&str]) {
        let side = |name: &str, rows: &[Option<i64>], seconds| Side {
            name: name.to_owned(),
            engine: Box::new(Fixed(rows.iter().copied().collect(), seconds)),
        };
        let mut sides = [side("ours", &[Some(1)], 3.0), side("theirs", other, 2.0)];
        let question = Question { name: "one".to_owned(), texts: vec![Some("q".to_owned()); 2] };
        let goal = Some(Goal { mean_max: 1.6, each_max: None });
        let text = contest(&mut sides, &[question], 4, &[None, goal]).unwrap();
        for expected in expected {
            assert!(text.contains(expected), "{text}");
        }
    }

    #[test]
    fn only_equal_answers_count() {
        check(&[Some(1)], &["| one | 3.00 | 2.00 | 1.50 | 3 |", "mean **1.50**", "; reached)"]);
        check(&[Some(2)], &["| – | – |", "another answer: [1] and [2]", "; missed)"]);
        check(&[None], &["one, theirs: planted", "over 0 of 1 questions"]);
    }

    #[test]
    fn means_of_ratios_are_geometric() {
        assert_eq!(geometric_mean(&[2.0, 0.5]), 1.0);
        assert!(geometric_mean(&[]).is_nan());
    }
}
