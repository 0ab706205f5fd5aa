//! What somebody can do to the model who sends mail or teaches it: over the sample mail in `corpus/`. Each story prints
//! its figures (`cargo test --lib attack -- --nocapture`).

use std::path::Path;

use super::*;
use crate::message::{Message, parse};

struct Sample {
    label: Label,
    class: String,
    message: Message,
}

fn samples() -> Vec<Sample> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let manifest = std::fs::read_to_string(corpus.join("MANIFEST")).unwrap();
    let lines = manifest.lines().filter(|line| !line.starts_with('#') && line.contains("\tinbound\t"));
    let of = |line: &str| {
        let fields: Vec<&str> = line.split('\t').collect();
        Sample {
            label: Label::from_name(fields[4]).unwrap(),
            class: fields[2].to_owned(),
            message: parse(&std::fs::read(corpus.join(fields[0])).unwrap()),
        }
    };
    lines.map(of).collect()
}

fn lesson(message: &Message, label: Label, teacher: u32, hour: i64) -> Lesson {
    let features = extract(message, None, &FeatureKey::from_bytes([3; 32])).features;
    Lesson { label, features, weight: Weight::Whole, teacher, hour }
}

/// Even samples teach, thrice; odd ones are judged.
fn taught(samples: &[Sample]) -> Model {
    let mut model = Model::new();
    for _ in 0..3 {
        for sample in samples.iter().step_by(2) {
            model.learn(&lesson(&sample.message, sample.label, 0, 0));
        }
    }
    model
}

fn score(model: &Model, message: &Message) -> f64 {
    model.judge(&extract(message, None, &FeatureKey::from_bytes([3; 32]))).unwrap().score
}

/// The mean score of those messages that were not taught.
fn mean(model: &Model, samples: &[Sample], is_meant: impl Fn(&Sample) -> bool) -> f64 {
    let scores: Vec<f64> = samples
        .iter()
        .skip(1)
        .step_by(2)
        .filter(|sample| is_meant(sample))
        .map(|sample| score(model, &sample.message))
        .collect();
    scores.iter().sum::<f64>() / scores.len() as f64
}

fn is_phishing(sample: &Sample) -> bool {
    sample.class == "phishing"
}

fn is_ham(sample: &Sample) -> bool {
    sample.label == Label::Ham
}

/// Teaches phishing as ham, `count` times in each of so many hours.
fn mislabel(model: &mut Model, samples: &[Sample], teacher: u32, count: usize, hours: i64) {
    let campaign: Vec<&Sample> = samples.iter().step_by(2).filter(|sample| is_phishing(sample)).collect();
    for hour in 1..=hours {
        for sample in campaign.iter().cycle().take(count) {
            model.learn(&lesson(&sample.message, Label::Ham, teacher, hour));
        }
    }
}

#[test]
fn all_ham_before_all_spam_is_learned_no_worse() {
    let samples = samples();
    let mut model = Model::new();
    for label in [Label::Ham, Label::Spam] {
        for sample in samples.iter().step_by(2).filter(|sample| sample.label == label) {
            model.learn(&lesson(&sample.message, label, 0, 0));
        }
    }
    let (ham, spam) = (mean(&model, &samples, is_ham), mean(&model, &samples, |sample| !is_ham(sample)));
    println!("all ham before all spam: ham {ham:.1}, spam {spam:.1}, spam from {:.1}", model.bounds().1);
    assert!(ham < 0.0 && spam > 3.0);
}

/// Has a person, and then the administrator, who is not limited, teach phishing as ham, and prints what that does.
fn check_mislabelled(name: &str, count: usize, hours: i64) {
    let samples = samples();
    let model = taught(&samples);
    let before = mean(&model, &samples, is_phishing);
    let [after, without] = [7, 0].map(|teacher| {
        let mut model = model.clone();
        mislabel(&mut model, &samples, teacher, count, hours);
        mean(&model, &samples, is_phishing)
    });
    println!("{name}: phishing {before:.1}, after {after:.1}, without the limit {without:.1}");
    assert!(after > 0.0 && after > without + 3.0);
}

#[test]
fn attack_one_person_calls_a_campaign_wanted() {
    check_mislabelled("2,000 wrong lessons in an hour", 2_000, 1);
}

#[test]
fn attack_slow_drift_is_bounded_by_the_day() {
    check_mislabelled("20 wrong lessons an hour for a day", 20, 23);
}

#[test]
fn attack_a_dictionary_in_spam_does_not_cost_ham() {
    let samples = samples();
    let mut model = taught(&samples);
    let before = mean(&model, &samples, is_ham);
    let words: String =
        samples.iter().filter(|sample| is_ham(sample)).map(|sample| &*sample.message.text).collect();
    for sample in samples.iter().step_by(2).filter(|sample| is_phishing(sample)).cycle().take(100) {
        let text = format!("{}\n{words}", sample.message.text);
        model.learn(&lesson(&Message { text, ..sample.message.clone() }, Label::Spam, 0, 1));
    }
    let after = mean(&model, &samples, is_ham);
    let (_, spam_from) = model.bounds();
    let lost =
        samples.iter().filter(|sample| is_ham(sample) && score(&model, &sample.message) >= spam_from).count();
    println!("100 spam with all words of ham: ham {before:.1}, after {after:.1}, {lost} lost");
    let ham = samples.iter().filter(|sample| is_ham(sample)).count();
    assert!(lost * 50 <= ham, "{lost} of {ham}");
}

#[test]
fn attack_words_of_ham_hide_little_and_nothing_where_they_are_hidden() {
    let samples = samples();
    let model = taught(&samples);
    let words: String =
        samples.iter().filter(|sample| is_ham(sample)).map(|sample| &*sample.message.text).collect();
    let shown = |sample: &Sample| {
        score(
            &model,
            &Message { text: format!("{}\n{words}", sample.message.text), ..sample.message.clone() },
        )
    };
    let hidden =
        |sample: &Sample| score(&model, &Message { hidden_text: words.clone(), ..sample.message.clone() });
    let phishing: Vec<&Sample> = samples.iter().filter(|sample| is_phishing(sample)).collect();
    let mean = |of: &dyn Fn(&Sample) -> f64| {
        phishing.iter().map(|sample| of(sample)).sum::<f64>() / phishing.len() as f64
    };
    let plain = mean(&|sample| score(&model, &sample.message));
    let (shown, hidden) = (mean(&shown), mean(&hidden));
    println!(
        "words of all ham added to phishing: {plain:.1}, where they are seen {shown:.1}, hidden {hidden:.1}"
    );
    assert!(hidden > plain - 1.5 && shown <= hidden);
}

/// A person who has no wish for newsletters, which all others want: the layer after so many of their lessons.
fn without_newsletters(samples: &[Sample], model: &Model, lessons: usize) -> Layer {
    let is_newsletter = |sample: &&Sample| sample.class == "newsletter";
    let newsletters = samples.iter().step_by(2).filter(is_newsletter).cycle();
    let mut layer = Layer::new();
    for sample in newsletters.take(lessons) {
        let lesson = lesson(&sample.message, Label::Spam, 1, 0);
        layer.learn(&lesson, &model.base(&lesson.features), &Above { model, layers: &[] });
    }
    layer
}

#[test]
fn a_taste_is_followed_within_twenty_lessons_and_costs_the_other_mail_little() {
    let samples = samples();
    let model = taught(&samples);
    let spam_from = model.bounds().1;
    let unseen = || samples.iter().skip(1).step_by(2);
    let mut kept_at = Vec::new();
    for lessons in [0, 4, 8, 12, 20] {
        let layer = without_newsletters(&samples, &model, lessons);
        let score = |sample: &Sample| {
            let features = lesson(&sample.message, Label::Ham, 0, 0).features;
            layer.add(&model.base(&features), &features).score()
        };
        let newsletters = || unseen().filter(|sample| sample.class == "newsletter");
        let kept = newsletters().filter(|sample| score(sample) >= spam_from).count();
        let others = unseen().filter(|sample| sample.class != "newsletter");
        let wrong = others.filter(|sample| (score(sample) >= spam_from) == is_ham(sample)).count();
        println!(
            "{lessons} lessons: {kept} of {} unseen newsletters kept, {wrong} others wrong",
            newsletters().count()
        );
        kept_at.push((kept, wrong));
    }
    let ((first, before), (last, after)) = (kept_at[0], kept_at[4]);
    assert!(first == 0 && last * 10 >= unseen().filter(|sample| sample.class == "newsletter").count() * 8);
    assert!(after <= before + 3, "{kept_at:?}");
}
