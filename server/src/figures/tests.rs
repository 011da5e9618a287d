//! Figures read off answers of each kind, whole, in pieces, and hostile.

use proptest::prelude::*;

use super::*;

fn figures(shape: Shape, body: &[u8]) -> Figures {
    let mut observer = Observer::new(shape, Instant::now());
    observer.observe(body);
    observer.figures()
}

/// Without what depends on the clock.
fn timeless(mut figures: Figures) -> Figures {
    figures.first_token = None;
    figures.tokens_per_second = None;
    figures
}

const OLLAMA: &str = concat!(
    r#"{"model":"llama3.2:3b","created_at":"2026-01-31T13:17:00Z","message":{"role":"assistant","content":"Hi"},"done":false}"#,
    "\n",
    r#"{"model":"llama3.2:3b","created_at":"2026-01-31T13:17:01Z","message":{"role":"assistant","content":""},"done":true,"#,
    r#""done_reason":"stop","total_duration":4883583458,"load_duration":1334875000,"prompt_eval_count":26,"#,
    r#""prompt_eval_duration":342546000,"eval_count":282,"eval_duration":4535599000}"#,
    "\n"
);

#[test]
fn ollama_says_all_of_it_in_its_last_record() {
    let figures = figures(Shape::Lines, OLLAMA.as_bytes());
    assert_eq!(figures.model.as_deref(), Some("llama3.2:3b"));
    assert_eq!((figures.tokens_in, figures.tokens_out), (Some(26), Some(282)));
    assert_eq!(figures.load, Some(Duration::from_micros(1_334_875)));
    assert!((figures.tokens_per_second.unwrap() - 62.175).abs() < 0.01, "{figures:?}");
    assert!(figures.first_token.is_some());
}

#[test]
fn a_record_longer_than_what_is_kept_is_read_all_the_same() {
    let context = vec!["12345"; 10_000].join(",");
    let body = OLLAMA.replace(r#""done_reason""#, &format!(r#""context":[{context}],"done_reason""#));
    assert_eq!(timeless(figures(Shape::Lines, body.as_bytes())), timeless(figures(Shape::Lines, OLLAMA.as_bytes())));
    let embedding = format!(
        r#"{{"model":"all-minilm","embeddings":[[{}]],"total_duration":14143917,"load_duration":1019500,"prompt_eval_count":8}}"#,
        vec!["0.010071029"; 5_000].join(",")
    );
    let figures = figures(Shape::Whole, embedding.as_bytes());
    assert_eq!((figures.model.as_deref(), figures.tokens_in, figures.tokens_out), (Some("all-minilm"), Some(8), None));
    assert_eq!((figures.load, figures.first_token), (Some(Duration::from_nanos(1_019_500)), None));
}

fn chunk(delta: &str, more: &str) -> String {
    format!(
        "data: {{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"smollm2\",\
         \"choices\":[{{\"index\":0,\"delta\":{delta}}}]{more}}}\n\n"
    )
}

#[test]
fn openai_says_it_when_asked_and_is_counted_otherwise() {
    let tokens: String = (0..7).map(|n| chunk(&format!("{{\"content\":\"t{n}\"}}"), "")).collect();
    let end = chunk("{}", "");
    let usage = chunk("{}", ",\"usage\":{\"prompt_tokens\":31, \"completion_tokens\" : 8,\"total_tokens\":39}");
    let asked = figures(Shape::Events, format!("{tokens}{end}{usage}data: [DONE]\n\n").as_bytes());
    assert_eq!((asked.tokens_in, asked.tokens_out), (Some(31), Some(8)));
    assert_eq!(asked.model.as_deref(), Some("smollm2"));
    let counted = figures(Shape::Events, format!("{tokens}{end}data: [DONE]\n\n").as_bytes());
    assert_eq!((counted.tokens_in, counted.tokens_out), (None, Some(7)));
    // Also where the answer broke off, and where lines end otherwise.
    assert_eq!(figures(Shape::Events, tokens.as_bytes()).tokens_out, Some(7));
    assert_eq!(figures(Shape::Events, tokens.replace('\n', "\r\n").as_bytes()).tokens_out, Some(7));
    let null = chunk("{\"content\":null}", ",\"usage\":null");
    assert_eq!(figures(Shape::Events, format!("{tokens}{null}").as_bytes()).tokens_out, Some(7));
    // llama.cpp adds its own timings.
    let timings = chunk("{}", ",\"timings\":{\"prompt_n\":5,\"predicted_n\":6,\"predicted_per_second\":81.5}");
    let llama = figures(Shape::Events, format!("{tokens}{timings}data: [DONE]\n\n").as_bytes());
    assert_eq!((llama.tokens_in, llama.tokens_out, llama.tokens_per_second), (Some(5), Some(6), Some(81.5)));
}

#[test]
fn anthropic_says_it_at_both_ends() {
    let filler = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"x\"}}\n\n";
    let body = format!(
        "event: message_start\ndata: {{\"type\":\"message_start\",\"message\":{{\"id\":\"m\",\"model\":\"qwen3\",\
         \"usage\":{{\"input_tokens\":17,\"output_tokens\":0}}}}}}\n\n{}event: message_delta\ndata: \
         {{\"type\":\"message_delta\",\"delta\":{{\"stop_reason\":\"end_turn\"}},\"usage\":{{\"output_tokens\":99}}}}\n\n",
        filler.repeat(200)
    );
    let figures = figures(Shape::Events, body.as_bytes());
    assert_eq!((figures.model.as_deref(), figures.tokens_in, figures.tokens_out), (Some("qwen3"), Some(17), Some(99)));
}

#[test]
fn what_a_model_writes_is_no_figure() {
    let body = br#"{"model":"m","message":{"content":"\"eval_count\":999,\"model\":\"fake\""},"eval_count":3}"#;
    let figures = figures(Shape::Whole, body);
    assert_eq!((figures.model.as_deref(), figures.tokens_out), (Some("m"), Some(3)));
}

#[test]
fn what_is_no_name_or_number_is_left_out() {
    for name in ["", "a b", "a\\u0000", "<b>", "caf\u{e9}", &"x".repeat(MAX_NAME + 1)] {
        let body = format!(r#"{{"model":"{name}","eval_count":1}}"#);
        assert_eq!(figures(Shape::Whole, body.as_bytes()).model, None, "{name}");
    }
    for number in ["-1", "1e99", "\"7\"", "null", "[1]", "nan", "inf", "--", "", "9999999999999999999999"] {
        let body = format!(r#"{{"model":"m","eval_count":{number}}}"#);
        assert_eq!(figures(Shape::Whole, body.as_bytes()).tokens_out, None, "{number}");
    }
}

#[test]
fn only_what_can_be_read_is_looked_at() {
    let of = |status: StatusCode, fields: &[(http::HeaderName, &'static str)]| {
        let headers = fields.iter().map(|(name, value)| (name.clone(), http::HeaderValue::from_static(value)));
        Shape::of(status, &headers.collect())
    };
    let ndjson = (header::CONTENT_TYPE, "application/x-ndjson; charset=utf-8");
    assert_eq!(of(StatusCode::OK, std::slice::from_ref(&ndjson)), Some(Shape::Lines));
    assert_eq!(of(StatusCode::OK, &[(header::CONTENT_TYPE, "text/event-stream")]), Some(Shape::Events));
    assert_eq!(of(StatusCode::OK, &[(header::CONTENT_TYPE, "application/json")]), Some(Shape::Whole));
    assert_eq!(of(StatusCode::OK, &[(header::CONTENT_TYPE, "text/html")]), None);
    assert_eq!(of(StatusCode::BAD_REQUEST, std::slice::from_ref(&ndjson)), None);
    assert_eq!(of(StatusCode::OK, &[ndjson, (header::CONTENT_ENCODING, "gzip")]), None);
    assert_eq!(of(StatusCode::OK, &[]), None);
}

/// Bodies that look like answers, cut and mixed.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let words = [
        "data: ",
        "\n",
        "\n\n",
        "\r\n",
        "{",
        "}",
        "\"model\":\"m\"",
        "\"eval_count\":",
        "\"usage\":{",
        "12",
        "1e5",
        "-",
        "\"prompt_tokens\" : 3",
        "\"content\":\"x\"",
        "\"content\":\"\"",
        "\"",
        ":",
        "[DONE]",
        "\"load_duration\":7",
    ];
    let word = prop_oneof![
        prop::sample::select(words.to_vec()).prop_map(|word| word.as_bytes().to_vec()),
        any::<[u8; 3]>().prop_map(Vec::from)
    ];
    (prop::collection::vec(word, 0..200), 1..60usize).prop_map(|(words, times)| words.concat().repeat(times))
}

proptest! {
    #[test]
    fn any_pieces_give_the_same_figures(body in body(), cuts in prop::collection::vec(1..5000usize, 1..50), events in any::<bool>()) {
        let shape = if events { Shape::Events } else { Shape::Lines };
        let whole = figures(shape, &body);
        let mut observer = Observer::new(shape, Instant::now());
        let (mut rest, mut cuts) = (&body[..], cuts.into_iter().cycle());
        while !rest.is_empty() {
            let (piece, more) = rest.split_at(cuts.next().unwrap().min(rest.len()));
            observer.observe(piece);
            prop_assert!(observer.held() <= HEAD + 2 * TAIL);
            rest = more;
        }
        prop_assert_eq!(timeless(observer.figures()), timeless(whole));
    }
}
