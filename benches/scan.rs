//! How fast a message is scanned: every step on its own and the whole, over a folder of messages.
//!
//! `cargo bench --bench scan` uses the sample mail in `corpus/`; `LAZARET_BENCH_FOLDER=DIR` another folder.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a bench that cannot set itself up fails"
)]

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use lazaret::learn::{self, Above, FeatureKey, Label, Layer, Lesson, Model, Weight};
use lazaret::mail::{Address, Client, Direction, Envelope, Mail, TransactionId};
use lazaret::message::{self, Message};
use lazaret::rules::{RuleSet, Subject};

fn main() {
    divan::main();
}

struct Input {
    raw: Vec<Vec<u8>>,
    parsed: Vec<Message>,
    rules: RuleSet,
    key: FeatureKey,
    model: Model,
    /// Of an organisation, and of one of its people.
    layers: Vec<Arc<Layer>>,
    envelope: Envelope,
}

fn input() -> &'static Input {
    static INPUT: OnceLock<Input> = OnceLock::new();
    INPUT.get_or_init(|| {
        let folder = std::env::var_os("LAZARET_BENCH_FOLDER")
            .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus"), PathBuf::from);
        let mut files = Vec::new();
        find(&folder, &mut files);
        let raw: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
        let parsed: Vec<Message> = raw.iter().map(|raw| message::parse(raw)).collect();
        let key = FeatureKey::from_bytes([7; 32]);
        let mut model = Model::new();
        for (index, message) in parsed.iter().enumerate() {
            let label = if index % 2 == 0 { Label::Ham } else { Label::Spam };
            let features = learn::extract(message, None, &key).features;
            model.learn(&Lesson { label, features, weight: Weight::Whole, teacher: 0, hour: 0 });
        }
        let mut layers = [Layer::new(), Layer::new()];
        for (index, message) in parsed.iter().enumerate().take(200) {
            let label = if index % 3 == 0 { Label::Ham } else { Label::Spam };
            let features = learn::extract(message, None, &key).features;
            let base = model.base(&features);
            let lesson = Lesson { label, features, weight: Weight::Whole, teacher: 0, hour: 0 };
            let above = Above { model: &model, layers: &[] };
            layers.iter_mut().for_each(|layer| layer.learn(&lesson, &base, &above));
        }
        let layers = layers.map(Arc::new).to_vec();
        let bytes: usize = raw.iter().map(Vec::len).sum();
        println!("{} messages, {} bytes on average", raw.len(), bytes / raw.len().max(1));
        Input {
            raw,
            parsed,
            rules: RuleSet::built_in(Direction::Inbound),
            key,
            model,
            layers,
            envelope: envelope(),
        }
    })
}

fn find(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find(&path, files);
        } else if path
            .file_name()
            .is_some_and(|name| name != "MANIFEST" && name != "README.md" && name != "index")
        {
            files.push(path);
        }
    }
    files.sort();
}

fn envelope() -> Envelope {
    Envelope {
        id: TransactionId::from_random([0; TransactionId::LEN]),
        direction: Direction::Inbound,
        client: Client {
            helo: "mail.sender.example".to_owned(),
            ..Client::new("192.0.2.1:25".parse().unwrap())
        },
        mail: Mail { reverse_path: Address::parse("ann@sender.example").ok(), ..Mail::default() },
        recipients: vec![Address::parse("alice@example.org").unwrap().into()],
    }
}

fn counted(bencher: Bencher<'_, '_>, mut work: impl FnMut(&Input, usize)) {
    let input = input();
    let bytes: usize = input.raw.iter().map(Vec::len).sum();
    bencher.counter(ItemsCount::new(input.raw.len())).counter(BytesCount::new(bytes)).bench_local(|| {
        for index in 0..input.raw.len() {
            work(input, index);
        }
    });
}

#[divan::bench(sample_count = 15, sample_size = 1)]
fn parse(bencher: Bencher<'_, '_>) {
    counted(bencher, |input, index| {
        divan::black_box(message::parse(&input.raw[index]));
    });
}

#[divan::bench(sample_count = 15, sample_size = 1)]
fn rules(bencher: Bencher<'_, '_>) {
    counted(bencher, |input, index| {
        divan::black_box(input.rules.evaluate(&Subject::new(
            &input.parsed[index],
            &input.raw[index],
            &input.envelope,
        )));
    });
}

#[divan::bench(sample_count = 15, sample_size = 1)]
fn bayes(bencher: Bencher<'_, '_>) {
    counted(bencher, |input, index| {
        let extracted = learn::extract(&input.parsed[index], Some(&input.envelope.client), &input.key);
        divan::black_box(input.model.judge(&extracted));
    });
}

#[divan::bench(sample_count = 15, sample_size = 1)]
fn three_layers(bencher: Bencher<'_, '_>) {
    counted(bencher, |input, index| {
        let extracted = learn::extract(&input.parsed[index], Some(&input.envelope.client), &input.key);
        let heard = input.model.hear(&extracted.features);
        let shared = input.model.judge_heard(&extracted, &heard);
        let own = input.model.judge_for(&extracted, &heard, &input.layers);
        divan::black_box(own.and_then(|own| {
            let counted = shared.map_or(0.0, |shared| shared.points());
            learn::difference(counted, &own, learn::MAX_POINTS)
        }));
    });
}

#[divan::bench(sample_count = 15, sample_size = 1)]
fn whole(bencher: Bencher<'_, '_>) {
    counted(bencher, |input, index| {
        let message = message::parse(&input.raw[index]);
        divan::black_box(input.rules.evaluate(&Subject::new(&message, &input.raw[index], &input.envelope)));
        let extracted = learn::extract(&message, Some(&input.envelope.client), &input.key);
        divan::black_box(input.model.judge(&extracted));
    });
}
